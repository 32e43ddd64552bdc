// Shows each case of the page in NiiVue: three planes, one slider per plane. Where there is no
// WebGL2 the picture below stays. The result stands in the page as text.
"use strict";

const bytesOf = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;

/** Colours of the values from 1; 0 is transparent. */
function labelColours(names, colours) {
  const channel = (at) => [0, ...colours.map((c) => parseInt(c.slice(at, at + 2), 16))];
  return {
    R: channel(1), G: channel(3), B: channel(5),
    A: [0, ...colours.map(() => 255)],
    I: [0, ...colours.map((_, k) => k + 1)],
    labels: ["background", ...names],
  };
}

async function show(figure) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const canvas = figure.querySelector("canvas");
  const viewer = new niivue.Niivue({
    backColor: [0, 0, 0, 1], crosshairWidth: 0.15, isRadiologicalConvention: false,
    show3Dcrosshair: false, multiplanarShowRender: 0, dragAndDropEnabled: false,
    isResizeCanvas: true, textHeight: 0.1, multiplanarLayout: 3, fontColor: [1, 1, 0, 1],
    showAllOrientationMarkers: true, logLevel: "silent",
  });
  await viewer.attachToCanvas(canvas);
  const table = labelColours(data.names, data.colours);
  const names = Object.keys(data.volumes);
  for (const name of names) {
    const image = await niivue.NVImage.new(
      bytesOf(data.volumes[name]), `${name}.nii.gz`, "gray", name === "image" ? 1 : 0, null,
      name === "image" ? 0 : NaN, name === "image" ? 255 : NaN,
    );
    viewer.addVolume(image);
    if (name !== "image") image.setColormapLabel(table);
  }
  viewer.setSliceType(viewer.sliceTypeMultiplanar);
  viewer.setInterpolation(true);
  viewer.updateGLVolume();

  const sliders = [...figure.querySelectorAll("input[type=range]")];
  const sizes = viewer.volumes[0].dimsRAS.slice(1, 4);
  const move = () => {
    viewer.scene.crosshairPos = sliders.map((s, axis) => (Number(s.value) + 0.5) / sizes[axis]);
    viewer.drawScene();
  };
  sliders.forEach((slider, axis) => {
    slider.max = sizes[axis] - 1;
    slider.value = Math.floor(data.centre[axis] * sizes[axis]);
    slider.addEventListener("input", move);
  });
  viewer.onLocationChange = (place) => sliders.forEach((s, axis) => { s.value = place.vox[axis]; });
  const choose = () => {
    const chosen = figure.querySelector("input[type=radio]:checked").value;
    names.forEach((name, k) => { if (k) viewer.setOpacity(k, chosen === name ? 0.6 : 0); });
  };
  figure.querySelectorAll("input[type=radio]").forEach((r) => r.addEventListener("change", choose));
  choose();
  move();
  figure.classList.add("live");
}

(async () => {
  const status = document.getElementById("viewer-status");
  const figures = [...document.querySelectorAll("figure.case")];
  if (!document.createElement("canvas").getContext("webgl2")) {
    status.textContent = "This browser has no WebGL2: pictures are shown in place of volumes.";
    return;
  }
  for (const figure of figures) await show(figure);
  status.textContent = `OK volumes: ${figures.length}`;
})();
