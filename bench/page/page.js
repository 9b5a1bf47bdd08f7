"use strict";
// What was measured under the pointer, as text. Without this the page has all figures too.
(() => {
  const figure = (v) => (v >= 1000 ? Math.round(v).toLocaleString("en-US") : v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2));
  const age = (ms) => (ms >= 1000 ? figure(ms / 1000) + " s" : ms < 1 ? Math.round(ms * 1000) + " µs" : figure(ms) + " ms");
  for (const panel of document.querySelectorAll(".panel")) {
    const data = JSON.parse(panel.dataset.readings);
    const readout = panel.querySelector(".readout");
    const rest = readout.textContent;
    const cursors = panel.querySelectorAll(".cursor");
    if (!data.rows || data.rows.length === 0) continue;
    const show = (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      const at = data.from + ((event.clientX - box.left) / box.width) * (data.to - data.from);
      let row = data.rows[0];
      for (const r of data.rows) if (Math.abs(r[0] - at) < Math.abs(row[0] - at)) row = r;
      const left = (100 * (row[0] - data.from)) / (data.to - data.from) + "%";
      for (const c of cursors) { c.style.left = left; c.hidden = false; }
      const ages = row[1] > 0 ? `  p50 ${age(row[2])}  p99 ${age(row[3])}  max ${age(row[4])}` : "";
      readout.textContent = `${row[0].toFixed(1)} s  ${figure(row[1])}/s${ages}`;
    };
    const hide = () => {
      for (const c of cursors) c.hidden = true;
      readout.textContent = rest;
    };
    for (const plot of panel.querySelectorAll(".draw")) {
      plot.addEventListener("pointermove", show);
      plot.addEventListener("pointerdown", show);
      plot.addEventListener("pointerleave", hide);
    }
  }
  // On paper nothing can be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const d of folded) d.open = true;
  });
  addEventListener("afterprint", () => {
    for (const d of folded) d.open = false;
  });
})();
