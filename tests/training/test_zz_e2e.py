import os, torch, hashlib, json, pytest
from tests.training.test_resume import settings_of
try:
    from hsf_finetune.experiment.run import run_experiment as execute
except ImportError:
    from hsf_finetune.run import execute
def test_e2e(data,tmp_path):
    out={}
    for preset in ("staged","hsf","gradual"):
        r=tmp_path/preset
        execute(settings_of(data,r,preset))
        c=torch.load(r/"checkpoints"/"last.ckpt",weights_only=True)
        m=hashlib.sha256()
        for part in ("state_dict","current_model_state"):
            for k,t in c[part].items(): m.update(k.encode()); m.update(t.contiguous().numpy().tobytes())
        rows=[l.split(",") for l in (r/"metrics.csv").read_text().splitlines()]
        keep=[i for i,h in enumerate(rows[0]) if h!="seconds" and not h.startswith("cost/")]
        out[preset]=[m.hexdigest(),sorted(c["callbacks"]),c["epoch"],sorted(c),sorted(c["hsf_finetune"].items(),key=str).__repr__(),[[x[i] for i in keep] for x in rows]]
    json.dump(out,open(os.environ["OUT"],"w"),indent=0,default=str)
