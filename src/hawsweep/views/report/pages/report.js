"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const isCoarse = matchMedia("(pointer: coarse)").matches;
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["toImage", "resetScale2d"]],
  };
  const read = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const plots = () => Object.keys(figures).map((name) => document.getElementById("plot-" + name)).filter(Boolean);

  // What of a figure's layout depends on the page being light or dark.
  function themed(layout) {
    const changes = {
      "font.color": read("--soft"),
      "hoverlabel.bgcolor": read("--raised"),
      "hoverlabel.bordercolor": read("--line"),
      "hoverlabel.font.color": read("--ink"),
      "modebar.color": read("--soft"),
      "modebar.activecolor": read("--ink"),
      "modebar.bgcolor": "rgba(0,0,0,0)",
    };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        changes[key + ".gridcolor"] = read("--line");
        changes[key + ".linecolor"] = read("--line");
      }
    }
    (layout.annotations || []).forEach((note, index) => {
      // The line of the base, in its colour.
      const named = note.font && note.font.color;
      changes["annotations[" + index + "].font.color"] = named ? read("--base") : read("--soft");
      if (note.bgcolor) changes["annotations[" + index + "].bgcolor"] = read("--page");
    });
    return changes;
  }

  function paint() {
    return Promise.all(plots().map((at) => Plotly.relayout(at, at.themed())));
  }

  const drawn = Object.entries(figures).map(([name, figure]) => {
    const at = document.getElementById("plot-" + name);
    if (!at) return null;
    const layout = figure.layout;
    at.style.height = (layout.height || 360) + "px";
    if (isCoarse) layout.dragmode = false;
    delete layout.height;
    at.themed = () => themed(figure.layout);
    const options = { ...config, toImageButtonOptions: { filename: "hawsweep-" + name } };
    return Plotly.newPlot(at, figure.data, layout, options);
  });

  const button = document.getElementById("theme");
  const modes = ["system", "light", "dark"];
  let mode = "system";
  function setMode(next) {
    mode = next;
    if (mode === "system") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", mode);
    button.textContent = "theme: " + mode;
    return paint();
  }
  button.hidden = false;
  button.addEventListener("click", () => setMode(modes[(modes.indexOf(mode) + 1) % modes.length]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

  // Paper is white.
  let before = null;
  addEventListener("beforeprint", () => {
    if (before) return;
    before = mode;
    setMode("light");
  });
  addEventListener("afterprint", () => {
    if (before) setMode(before);
    before = null;
  });

  Promise.all(drawn).then(() => setMode("system")).then(() => root.setAttribute("data-drawn", "true"));
})();
