"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const isCoarse = matchMedia("(pointer: coarse)").matches;
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: isCoarse ? false : "hover",
    modeBarButtons: [["toImage", "resetScale2d"]],
  };
  // Labels of lines have their colours, which texts need darker or lighter.
  const ofLines = { "#0f9d8a": "--base", "#e8690b": "--accent" };
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
      const named = note.font && ofLines[note.font.color];
      changes["annotations[" + index + "].font.color"] = read(named || "--soft");
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

  document.querySelectorAll(".copy").forEach((copy) => {
    const text = copy.previousElementSibling;
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        copy.textContent = document.execCommand("copy") ? "Copied" : "Selected";
      }
    });
  });

  const toMark = JSON.parse(document.getElementById("to-mark").textContent);
  if (toMark && toMark.rows.length) showTranslations(toMark);

  function showTranslations(answers) {
    const section = document.getElementById("translations");
    const items = [...section.querySelectorAll(".item")];
    const texts = items.map((item) => [...item.querySelectorAll("dd:not(.judge)")].map((each) => each.textContent).join(" ").normalize().toLowerCase());
    const [text, group, all, save] = ["input[type=search]", "select", ".all", ".save"].map((one) => section.querySelector(one));
    section.querySelectorAll("[hidden]").forEach((each) => (each.hidden = false));

    function find() {
      const word = text.value.normalize().toLowerCase().trim();
      const named = group ? group.value : "";
      // A search looks into all answers.
      section.classList.toggle("only-first", !(word || named || (all && all.checked)));
      items.forEach((item, at) => item.classList.toggle("out", !texts[at].includes(word) || Boolean(named && item.dataset.group !== named)));
      const n = items.filter((item) => item.offsetParent).length;
      section.querySelector(".count").textContent = n + " of " + items.length;
    }
    [text, group, all].forEach((each) => each && each.addEventListener("input", find));
    section.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    find();

    // Marks by source and answer, so that those of an earlier answer do not count.
    const key = ["hawsweep", answers.study, answers.trial, answers.split].join("|");
    const nameOf = (row) => JSON.stringify([row.source, row.output]);
    const marks = new Map(kept());
    // A page without an origin, as in the dashboard, may keep nothing.
    function kept() {
      try {
        return Object.entries(JSON.parse(localStorage.getItem(key)) || {});
      } catch {
        return [];
      }
    }
    function keep() {
      try {
        localStorage.setItem(key, JSON.stringify(Object.fromEntries(marks)));
      } catch {}
    }
    const marked = () => answers.rows.filter((row) => marks.has(nameOf(row)));
    function show() {
      items.forEach((item, at) => {
        const right = marks.get(nameOf(answers.rows[at]));
        item.querySelectorAll(".judge button").forEach((one) => one.setAttribute("aria-pressed", right === (one.value === "right")));
      });
      const n = marked().length;
      save.disabled = n === 0;
      save.textContent = n ? "Save " + n + (n > 1 ? " marks" : " mark") : "Save marks";
    }
    items.forEach((item, at) => {
      const name = nameOf(answers.rows[at]);
      item.querySelectorAll(".judge button").forEach((one) => {
        one.addEventListener("click", () => {
          const right = one.value === "right";
          if (marks.get(name) === right) marks.delete(name);
          else marks.set(name, right);
          keep();
          show();
        });
      });
    });
    save.addEventListener("click", () => {
      const { study, trial, split } = answers;
      const found = marked().map(({ source, output }) => ({ source, output, right: marks.get(nameOf({ source, output })) }));
      const text = JSON.stringify({ study, trial, split, marks: found }, null, 1) + "\n";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      link.download = study + "-marks.json";
      link.click();
      URL.revokeObjectURL(link.href);
    });
    show();
  }

  Promise.all(drawn).then(() => setMode("system")).then(() => root.setAttribute("data-drawn", "true"));
})();
