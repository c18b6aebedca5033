"use strict";
// What the tables and the chart share. Every text of the data goes through textContent, never through innerHTML.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function fill(select, values, everything) {
  if (everything) select.append(make("option", { value: "" }, everything));
  for (const value of new Set(values)) select.append(make("option", { value }, value));
}

// A name that may be broken into lines where one of its words ends.
function breakable(text) {
  return text.split(/(?<=[_(])/).flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));
}

function family(solver) {
  return data.solvers[solver].family;
}

// As a POSIX shell reads it.
function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : "'" + word.replaceAll("'", "'\"'\"'") + "'";
}

function command(solver, item) {
  const place = `${item.target}, ${item.process}, ${item.grid}`;
  const words = ["sdekit", "bench", "run", ...data.run, "--only", solver, "--on", place, "--out", "results/repeat"];
  return words.map(quoted).join(" ");
}

function exponent(value) {
  return value === null || value === undefined ? "–" : value.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");
}

function fixed(value) {
  return value.toFixed(2).replace("-", "\u2212");
}

function signed(value) {
  return `${value}`.replace("-", "\u2212");
}

function least(items) {
  return items.reduce((a, b) => (b.measured !== null && (a === null || b.measured < a.measured) ? b : a), null);
}
