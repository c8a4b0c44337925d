"use strict";
// Names the points of all curves under the pointer, or under the arrow keys.
for (const svg of document.querySelectorAll("svg[data-series]")) {
  const series = JSON.parse(svg.dataset.series);
  const places = [...new Set(series.flatMap((one) => one.points.map((p) => p[0])))].sort((a, b) => a - b);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  line.setAttribute("class", "pointer");
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("aria-live", "polite");
  svg.parentElement.append(tip);
  let index = -1;

  const show = (next) => {
    index = Math.max(0, Math.min(next, places.length - 1));
    const x = places[index];
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    for (const [name, value] of [["x1", x], ["x2", x], ["y1", 12], ["y2", height - 38]]) {
      line.setAttribute(name, value);
    }
    svg.append(line);
    const found = series.map((one) => [one.label, one.points.find((p) => p[0] === x)]).filter(([, p]) => p);
    tip.textContent = [`${svg.dataset.x} ${found[0][1][2]}`, ...found.map(([label, p]) => `${label}: ${p[3]}`)].join("\n");
    const box = svg.getBoundingClientRect();
    const place = (x / width) * box.width;
    tip.hidden = false;
    tip.style.left = `${Math.max(0, Math.min(place + 10, box.width - tip.offsetWidth))}px`;
  };
  const hide = () => {
    line.remove();
    tip.hidden = true;
    index = -1;
  };
  const nearest = (x) =>
    places.reduce((best, place, i) => (Math.abs(place - x) < Math.abs(places[best] - x) ? i : best), 0);

  tip.hidden = true;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    show(nearest(((event.clientX - box.left) / box.width) * Number(svg.getAttribute("viewBox").split(" ")[2])));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by !== undefined) {
      event.preventDefault();
      show(index + by);
    }
  });
}
