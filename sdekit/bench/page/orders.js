// The table of orders: one row for each solver and kind, made of the measurements that the filters leave.
(() => {
  const form = document.getElementById("order-filters");
  const body = document.querySelector("#order-table tbody");
  const status = document.getElementById("order-status");
  const top = Math.ceil(
    Math.max(1, ...data.orders.filter((o) => o.status === "ok").map((o) => Math.max(o.declared || 0, o.measured || 0))),
  );
  const opened = new Set();
  let order = { key: "kind", down: false };

  fill(form.elements.family, Object.values(data.solvers).map((s) => s.family).sort(), "all");
  for (const name of ["kind", "process", "target", "grid"])
    fill(form.elements[name], data.orders.map((o) => o[name]), "all");
  document
    .getElementById("strip-head")
    .append(draw("svg", { class: "dots", "aria-label": "Measurements", role: "img" }, ...range(top).map(label)));

  function label(n) {
    return draw("text", { x: `${(100 * n) / top}%`, y: "75%" }, `${n}`);
  }

  function range(n) {
    return Array.from({ length: n + 1 }, (_, i) => i);
  }

  function passes(item) {
    const wanted = form.elements;
    const text = wanted.solver.value.trim().toLowerCase();
    return (
      (!text || item.solver.toLowerCase().includes(text)) &&
      (!wanted.family.value || family(item.solver) === wanted.family.value) &&
      ["kind", "process", "target", "grid"].every((name) => !wanted[name].value || item[name] === wanted[name].value)
    );
  }

  function rows() {
    const groups = new Map();
    for (const item of data.orders.filter(passes)) {
      const key = `${item.solver}\n${item.kind}`;
      if (!groups.has(key)) groups.set(key, { key, solver: item.solver, kind: item.kind, items: [] });
      groups.get(key).items.push(item);
    }
    return [...groups.values()].map((group) => {
      const good = group.items.filter((o) => o.status === "ok");
      const low = least(good);
      const declared = good.length ? good[0].declared : null;
      return { ...group, family: family(group.solver), good, low, declared, measured: low && low.measured };
    });
  }

  function verdict(row) {
    if (row.good.length < row.items.length) return "FAILED";
    if (row.low === null) return "above";
    if (row.declared === null) return "";
    if (row.measured < row.declared - data.tolerance) return "SHORT";
    return row.measured > row.declared + data.above ? "above" : "holds";
  }

  function compare(a, b) {
    const sign = order.down ? -1 : 1;
    const [x, y] = [a[order.key], b[order.key]];
    const first = typeof x === "string" ? x.localeCompare(y) : (x ?? Infinity) - (y ?? Infinity);
    return sign * (first || 0) || a.kind.localeCompare(b.kind) || a.declared - b.declared || a.solver.localeCompare(b.solver);
  }

  function dots(row) {
    const x = (value) => `${(100 * Math.min(Math.max(value, 0), top)) / top}%`;
    const marks = range(top).map((n) => draw("line", { class: "tick", x1: x(n), x2: x(n), y1: "20%", y2: "80%" }));
    if (row.declared !== null)
      marks.push(draw("line", { x1: x(row.declared), x2: x(row.declared), y1: "0%", y2: "100%" }));
    for (const item of row.good)
      if (item.measured !== null) marks.push(draw("circle", { cx: x(item.measured), cy: "50%", r: 2.5 }));
    return draw("svg", { class: "dots", "aria-hidden": "true" }, ...marks);
  }

  function interval(item) {
    return item && item.interval.length ? `${fixed(item.interval[0])} to ${fixed(item.interval[1])}` : "";
  }

  function shown(row) {
    const said = verdict(row);
    const expanded = opened.has(row.key);
    const button = make("button", { type: "button", class: "name open", "aria-expanded": `${expanded}` }, ...breakable(row.solver));
    button.addEventListener("click", () => toggle(row, button));
    const where = row.low ? `${row.low.target}, ${row.low.process}, ${row.low.grid}` : "";
    const measured = row.low ? fixed(row.measured) : row.good.length ? "exact" : "–";
    const line = make(
      "tr",
      { "data-solver": row.solver, "data-kind": row.kind },
      make("th", { scope: "row" }, button, make("span", { class: "second" }, row.low ? `${row.kind}, ${interval(row.low)} on ${where}` : row.kind)),
      make("td", { class: "wide family" }, row.family),
      make("td", { class: "wide" }, row.kind),
      make("td", { class: "number" }, row.declared === null ? "–" : `${row.declared}`),
      make("td", { class: "number" }, measured),
      make("td", { class: "number roomy dim" }, interval(row.low)),
      make("td", { class: "wide" }, dots(row)),
      make("td", { class: "wide where" }, where),
      make("td", { class: ["SHORT", "FAILED"].includes(said) ? "bad" : "" }, said),
    );
    return expanded ? [line, detail(row)] : [line];
  }

  function toggle(row, button) {
    const line = button.closest("tr");
    if (opened.delete(row.key)) line.nextElementSibling.remove();
    else {
      opened.add(row.key);
      line.after(detail(row));
    }
    button.setAttribute("aria-expanded", `${opened.has(row.key)}`);
  }

  function detail(row) {
    const head = ["Measured on", "Measured", "Interval", "Errors by steps", ""];
    const classes = ["", "number", "number roomy", "wide", ""];
    const inner = make("tbody");
    for (const item of row.items) inner.append(measurement(item, classes));
    const table = make(
      "table",
      {},
      make("thead", {}, make("tr", {}, ...head.map((text, i) => make("th", { scope: "col", class: classes[i] }, text)))),
      inner,
    );
    return make("tr", { class: "detail" }, make("td", { colspan: "9" }, table));
  }

  function measurement(item, classes) {
    const good = item.status === "ok";
    const errors = good ? item.steps.map((n, i) => `${n}: ${exponent(item.errors[i])}`).join(", ") : item.message;
    const button = make("button", { type: "button", class: "ask", "aria-expanded": "false" }, "command");
    const texts = [
      `${item.target}, ${item.process}, ${item.grid}; ${item.half_log_snr.map(signed).join(" to ")}`,
      !good ? "failed" : item.measured === null ? "exact" : fixed(item.measured),
      good ? interval(item) : "",
      errors,
    ];
    const line = make("tr", {}, ...texts.map((text, i) => make("td", { class: classes[i] }, text)), make("td", {}, button));
    button.addEventListener("click", () => {
      const next = line.nextElementSibling;
      const there = next !== null && next.classList.contains("command");
      if (there) next.remove();
      else line.after(make("tr", { class: "command" }, make("td", { colspan: "5" }, make("code", {}, command(item.solver, item)))));
      button.setAttribute("aria-expanded", `${!there}`);
    });
    return line;
  }

  function render() {
    const found = rows().sort(compare);
    body.replaceChildren(...found.flatMap(shown));
    const count = found.reduce((n, row) => n + row.items.length, 0);
    status.textContent = `${found.length} rows, ${count} measurements of ${data.orders.length}.`;
  }

  for (const button of document.querySelectorAll("#order-table thead button"))
    button.addEventListener("click", () => {
      const key = button.dataset.sort;
      order = { key, down: order.key === key && !order.down };
      for (const head of document.querySelectorAll("#order-table thead th[aria-sort]")) head.removeAttribute("aria-sort");
      button.closest("th").setAttribute("aria-sort", order.down ? "descending" : "ascending");
      render();
    });
  form.addEventListener("change", render);
  form.elements.solver.addEventListener("input", render);
  form.addEventListener("reset", () => setTimeout(render));
  form.addEventListener("submit", (event) => event.preventDefault());
  render();
})();
