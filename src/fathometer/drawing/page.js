(() => {
"use strict";
const all = (selector, within) => Array.from((within || document).querySelectorAll(selector));
const root = document.documentElement;

const theme = document.getElementById("theme");
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const label = () => { theme.textContent = isDark() ? "Light page" : "Dark page"; theme.setAttribute("aria-pressed", String(isDark())); };
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
label();

document.getElementById("save").addEventListener("click", () => {
  const text = document.getElementById("manifest-data").textContent;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "manifest.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

for (const table of all("table.sorts")) {
  const heads = all("th", table), body = table.tBodies[0];
  heads.forEach((head, place) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => { const cell = row.cells[place]; return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v); };
    const order = (a, b) => {
      const x = key(a), y = key(b);
      if (typeof x === "number" && typeof y === "number") return Number.isNaN(x) - Number.isNaN(y) || (up ? x - y : y - x);
      return (typeof x === "string") - (typeof y === "string") || String(x).localeCompare(String(y)) * (up ? 1 : -1);
    };
    body.append(...Array.from(body.rows).sort(order));
  }));
}

const warp = (scale, t, v) => {
  if (scale === "log") return Math.log10(v);
  if (scale === "signed_log") { const s = Math.abs(v) / t; return Math.sign(v) * (s > 1 ? 1 + Math.log10(s) : s); }
  return v;
};
const unwarp = (scale, t, u) => {
  if (scale === "log") return 10 ** u;
  if (scale === "signed_log") { const s = Math.abs(u); return Math.sign(u) * t * (s > 1 ? 10 ** (s - 1) : s); }
  return u;
};
const value = (axis, share) => {
  const [scale, low, high, t] = axis.split(" ").map((part, i) => i ? Number(part) : part);
  if (scale === "category") return null;
  const a = warp(scale, t, low), b = warp(scale, t, high);
  return Number(unwarp(scale, t, a + share * (b - a)).toPrecision(4));
};
for (const figure of all("figure")) {
  const out = figure.querySelector(".readout");
  figure.addEventListener("pointerleave", () => { out.textContent = ""; });
  for (const svg of all("svg", figure)) svg.addEventListener("pointermove", (event) => {
    const plot = svg.querySelector(".fm-plot"), parts = [];
    const box = plot.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (box.bottom - event.clientY) / box.height;
    const tip = event.target.querySelector(":scope > title");
    if (tip && event.target !== svg) parts.push(tip.textContent);
    if (plot.dataset.x && x >= 0 && x <= 1 && y >= 0 && y <= 1) {
      const at = [["x", value(plot.dataset.x, x)], ["y", value(plot.dataset.y, y)]];
      parts.push(at.filter((pair) => pair[1] !== null).map((pair) => pair.join(" = ")).join(", "));
    }
    out.textContent = parts.join(" · ");
  });
}

addEventListener("beforeprint", () => all("details").forEach((one) => { one.open = true; }));
})();
