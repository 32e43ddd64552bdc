"""Small settings of every network, which the tests of networks, exports and training share."""

from __future__ import annotations

import pytest

from hsf_finetune.config.settings import (
    AnatomixSettings,
    ARUNetHparams,
    ARUNetSettings,
    BasicUNetSettings,
    DynUNetSettings,
    MedNeXtSettings,
    MonaiUNetSettings,
    NetworkSettings,
    NnUNetSettings,
    PrimusSettings,
    ResNetUNetSettings,
    RSUNetSettings,
    SegResNetDSSettings,
    SegResNetSettings,
    STUNetSettings,
    SuPreMUNetSettings,
    SwinUNETRSettings,
    UNETRSettings,
    UNetSettings,
)

SETTINGS: list[NetworkSettings] = [
    UNetSettings(),
    UNetSettings(channels=[4, 8], strides=[2], features=6, num_res_units=0, norm="batch"),
    UNetSettings(channels=[4, 8, 8, 8, 8], strides=[2, 1, 2, 2], norm="group", dropout=0.2),
    UNetSettings(channels=[3, 5, 9], strides=[3, 2], features=2, num_res_units=1, norm="group"),
    DynUNetSettings(),
    DynUNetSettings(channels=[4, 8, 8], norm="batch", residual=True, dropout=0.2),
    DynUNetSettings(channels=[4, 8, 8, 8, 8], norm="group"),
    DynUNetSettings(channels=[4, 8, 8], deep_supervision=True, dropout=0.2),
    DynUNetSettings(
        channels=[4, 6, 8, 10],
        strides=[1, 2, [2, 2, 1], [1, 2, 2]],
        kernel_size=[[3, 3, 1], 3, 3, 5],
        norm="instance_plain",
        residual=True,
        trans_bias=True,
        deep_supervision=True,
        deep_supr_num=2,
    ),
    MonaiUNetSettings(channels=[4, 8, 8], strides=[2, 2], dropout=0.2),
    MonaiUNetSettings(
        channels=[4, 6, 8],
        strides=[[2, 2, 1], 2],
        kernel_size=[3, 3, 1],
        up_kernel_size=5,
        num_res_units=0,
        act="leakyrelu",
        norm="batch",
    ),
    MonaiUNetSettings(
        channels=[4, 8, 8, 8], strides=[2, 1, 2], num_res_units=1, norm="instance_plain"
    ),
    BasicUNetSettings(features=[4, 4, 8, 8, 8, 6]),
    BasicUNetSettings(
        features=[6, 6, 6, 9, 9, 3],
        act="prelu",
        norm="group",
        norm_groups=3,
        upsample="nontrainable",
        dropout=0.2,
    ),
    BasicUNetSettings(features=[4, 4, 4, 4, 4, 4], norm="batch", upsample="pixelshuffle"),
    SegResNetSettings(),
    SegResNetSettings(init_filters=4, blocks_down=[1, 1], blocks_up=[2], norm="instance"),
    SegResNetSettings(
        init_filters=4, blocks_down=[2, 1, 1], blocks_up=[1, 1], norm="batch", dropout=0.2
    ),
    SegResNetSettings(
        init_filters=6,
        blocks_down=[1, 1],
        blocks_up=[1],
        norm_groups=3,
        upsample="deconv",
    ),
    SwinUNETRSettings(
        feature_size=12, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 2], window_size=3, drop_path=0.5
    ),
    SwinUNETRSettings(
        feature_size=12,
        depths=[1, 1, 1, 1],
        num_heads=[2, 2, 2, 2],
        window_size=[2, 2, 3],
        norm="batch",
        use_v2=True,
        downsample="mergingv2",
        use_checkpoint=True,
        dropout=0.2,
        attention_dropout=0.2,
    ),
    NnUNetSettings(features_per_stage=[4, 6, 8], norm_op="BatchNorm3d", dropout_op="Dropout3d"),
    NnUNetSettings(features_per_stage=[4, 6, 8, 8], orientation="LPI", deep_supervision=True),
    NnUNetSettings(
        architecture="ResidualEncoderUNet",
        features_per_stage=[4, 6, 8],
        kernel_sizes=[[1, 3, 3], 3, 3],
        strides=[1, [1, 2, 2], 2],
        n_blocks_per_stage=[1, 2, 3],
        n_conv_per_stage_decoder=1,
        stem_channels=3,
        dropout_op="Dropout",
        dropout_op_kwargs={"p": 0.2},
    ),
    ARUNetSettings(hparams=ARUNetHparams(f_maps=4)),
    ARUNetSettings(hparams=ARUNetHparams(f_maps=3, num_levels=2, use_attention=False)),
    SegResNetDSSettings(
        init_filters=4,
        blocks_down=[1, 1, 2, 1],
        blocks_up=[1, 1, 1],
        resolution=(1, 1, 3),
        deep_supervision=True,
    ),
    UNETRSettings(feature_size=3, hidden_size=6, mlp_dim=6, num_heads=2, image_size=32),
    MedNeXtSettings(init_filters=2, blocks_down=[1, 1], blocks_up=[1, 1], deep_supervision=True),
    MedNeXtSettings(
        init_filters=2,
        kernel_size=5,
        encoder_expansion=[1, 2],
        blocks_down=[1, 2],
        blocks_bottleneck=1,
        blocks_up=[1, 1],
        residual=False,
        response_norm=True,
    ),
    ResNetUNetSettings(depth=10, width=2, decoder_channels=[4, 4, 4, 2, 2]),
    ResNetUNetSettings(
        depth=18, width=2, decoder_channels=[4, 4, 4, 2, 2], norm="batch", upsample="deconv"
    ),
    STUNetSettings(
        features_per_stage=[2, 3, 4],
        n_blocks_per_stage=[1, 2, 1],
        strides=[1, [1, 2, 2], 2],
        orientation="SLA",
    ),
    SuPreMUNetSettings(width=2),
    AnatomixSettings(width=3, halvings=2, features=4),
    AnatomixSettings(
        width=2, halvings=2, norm="instance_plain", pooling="mean", upsample="trilinear"
    ),
    RSUNetSettings(channels=[2, 3, 4]),
    RSUNetSettings(
        channels=[4, 4, 6],
        strides=[[1, 2, 2], 2],
        kernel_size=[[1, 3, 3], 3, 3],
        norm="group",
        act="prelu",
        orientation="SAR",
    ),
    PrimusSettings(
        embed_dim=12,
        depth=5,
        num_heads=1,
        decoder_channels=[4, 3],
        image_size=[16, 16, 32],
        orientation="LPS",
    ),
]


def normalisation(settings: NetworkSettings) -> str:
    if isinstance(settings, NnUNetSettings):
        return {"BatchNorm3d": "batch"}.get(settings.norm_op or "", "instance")
    if isinstance(settings, SuPreMUNetSettings):
        return "batch"
    return getattr(settings, "norm", "switch")


def levels_in_training(settings: NetworkSettings) -> int:
    """How many levels segment in training."""
    if isinstance(settings, NnUNetSettings) and settings.deep_supervision:
        return len(settings.features_per_stage) - 2
    if isinstance(settings, MedNeXtSettings) and settings.deep_supervision:
        return 1 + len(settings.blocks_up)
    deep = getattr(settings, "deep_supervision", False)
    return 1 + (getattr(settings, "deep_supr_num", 0) if deep else 0)


every_network = pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda s: f"{s.name}-{normalisation(s)}-{SETTINGS.index(s)}"
)
