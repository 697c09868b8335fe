// Draws /openapi.json as a page. Text reaches the page as text only, never as markup.
"use strict";

const METHODS = ["post", "get", "head", "put", "patch", "delete"];
let api;

fetch("/openapi.json").then((answer) => answer.json()).then((document_) => { api = document_; draw(); }, (error) => {
  document.getElementById("page").textContent = `/openapi.json cannot be read: ${error}`;
});

/// An element with children; strings become text.
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) made.setAttribute(name, value);
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

/// Words with `code` in them.
function words(text) {
  return (text ?? "").split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part));
}

function paragraphs(text) {
  return (text ?? "").split(/\n\n|\n(?=\d\. )/).map((part) => el("p", {}, words(part)));
}

function draw() {
  const page = document.getElementById("page");
  page.replaceChildren(el("h2", {}, `${api.info.title} ${api.info.version}`), ...paragraphs(api.info.description),
    el("h4", {}, "Credential"), el("pre", {}, "authorization: Bearer fr_live_…"),
    el("p", {}, "The same for programs: ", el("a", { href: "/openapi.json" }, "/openapi.json"), " (OpenAPI 3.1)."));
  for (const tag of api.tags) drawTag(page, tag);
  drawSchemas(page);
  drawCodes(page);
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

function operations(tag) {
  return Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]?.tags?.includes(tag.name))
    .map((method) => ({ path, method, ...item[method] })));
}

function drawTag(page, tag) {
  const found = operations(tag);
  const menu = document.getElementById("menu");
  menu.append(el("h2", {}, tag.name), ...found.map((op) => el("a", { href: `#${op.operationId}` }, op.summary)));
  page.append(el("section", {}, el("h2", {}, tag.name), el("p", {}, words(tag.description))));
  for (const operation of found) page.append(drawOperation(operation));
}

function drawOperation(op) {
  const section = el("section", { id: op.operationId }, el("h3", {}, op.summary),
    el("div", { class: "where" }, el("span", { class: `verb ${op.method}` }, op.method.toUpperCase()), ` ${op.path}`),
    el("p", {}, words(op.description)));
  if (op.parameters?.length) section.append(el("h4", {}, "Parameters"), parameters(op.parameters));
  for (const [type, content] of Object.entries(op.requestBody?.content ?? {})) {
    section.append(el("h4", {}, `Body: ${type}`), body(content));
  }
  section.append(el("h4", {}, "Answers"), answers(op.responses), el("h4", {}, "On the command line"), el("pre", {}, curl(op)));
  return section;
}

function table(head, rows) {
  return el("table", {}, el("tr", {}, head.map((name) => el("th", {}, name))), rows);
}

function parameters(list) {
  return table(["Name", "Where", "Type", ""], list.map((p) => el("tr", {}, el("td", {}, el("code", {}, p.name)),
    el("td", {}, p.in, p.required ? el("div", { class: "must" }, "required") : null), el("td", {}, typeOf(p.schema)),
    el("td", {}, words(p.description)))));
}

function examples(content) {
  const named = Object.values(content.examples ?? {}).map((e) => [e.summary, e.value]);
  return content.example === undefined ? named : [["Example", content.example], ...named];
}

function body(content) {
  const parts = examples(content).map(([title, value]) => [el("h4", {}, title), el("pre", {}, show(value))]);
  return el("div", {}, schema(content.schema), parts);
}

function show(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function answers(responses) {
  return el("div", {}, Object.entries(responses).map(([status, answer]) => {
    const contents = Object.entries(answer.content ?? {});
    const types = contents.map(([type, content]) => [" ", el("code", {}, type), " ", typeOf(content.schema)]);
    const shown = contents.flatMap(([, content]) => examples(content)).map(([, value]) => el("pre", {}, show(value)));
    return el("div", {}, el("p", {}, el("strong", {}, status), " ", words(answer.description), types), shown);
  }));
}

function nameOf(schema_) {
  return schema_?.$ref?.split("/").pop();
}

/// A type in a few words, with a link to what is described below.
function typeOf(s) {
  if (!s) return "";
  if (s.$ref) return el("a", { href: `#schema-${nameOf(s)}` }, nameOf(s));
  const either = s.oneOf ?? s.anyOf ?? s.allOf;
  if (either) return el("span", {}, either.flatMap((part, i) => (i ? [" or ", typeOf(part)] : [typeOf(part)])));
  if (s.enum) return el("span", { class: "type" }, s.enum.map((v) => JSON.stringify(v)).join(" | "));
  const types = [s.type ?? "anything"].flat().join(" or ");
  if (s.items) return el("span", { class: "type" }, "list of ", typeOf(s.items));
  if (typeof s.additionalProperties === "object") return el("span", { class: "type" }, "map to ", typeOf(s.additionalProperties));
  return el("span", { class: "type" }, s.format ? `${types} (${s.format})` : types);
}

function schema(s) {
  if (s?.$ref) return el("p", {}, typeOf(s));
  return s?.properties ? fields(s) : el("p", {}, typeOf(s));
}

function fields(s) {
  return table(["Field", "Type", ""], Object.entries(s.properties).map(([name, field]) => el("tr", {},
    el("td", {}, el("code", {}, name), s.required?.includes(name) ? el("div", { class: "must" }, "required") : null),
    el("td", {}, typeOf(field)), el("td", {}, words(field.description)))));
}

function drawSchemas(page) {
  const menu = document.getElementById("menu");
  menu.append(el("h2", {}, "Words"));
  page.append(el("section", {}, el("h2", {}, "Words")));
  for (const [name, s] of Object.entries(api.components.schemas)) {
    menu.append(el("a", { href: `#schema-${name}` }, name));
    const parts = (s.allOf ?? [s]).map((part) => schema(part));
    page.append(el("section", { id: `schema-${name}` }, el("h3", {}, name), el("p", {}, words(s.description)), parts));
  }
}

function drawCodes(page) {
  document.getElementById("menu").append(el("h2", {}, "Problems"), el("a", { href: "#problems" }, "All codes"));
  const problems = api["x-problems"].map((p) => el("tr", { id: `problem-${p.code}` }, el("td", {}, el("code", {}, p.code)),
    el("td", {}, String(p.status)), el("td", {}, words(p.help))));
  const faults = api["x-faults"].map((f) => el("tr", {}, el("td", {}, el("code", {}, f.code)), el("td", {}, words(f.help))));
  page.append(el("section", { id: "problems" }, el("h2", {}, "Problems"), table(["Code", "Status", ""], problems),
    el("h4", {}, "Codes of single faults in `errors`"), table(["Code", ""], faults)));
}

function curl(op) {
  const parts = [`curl ${location.origin}${op.path}`];
  if (op.method !== "get") parts[0] = op.method === "head" ? parts[0].replace("curl", "curl -I") : parts[0].replace("curl", `curl -X ${op.method.toUpperCase()}`);
  if (!(op.security?.length === 1 && Object.keys(op.security[0]).length === 0)) parts.push('-H "authorization: Bearer $KEY"');
  const [type, content] = Object.entries(op.requestBody?.content ?? {})[0] ?? [];
  if (type === "application/json") parts.push('-H "content-type: application/json"', `-d '${JSON.stringify(examples(content)[0]?.[1] ?? {})}'`);
  else if (type) parts.push("--data-binary @FILE");
  return parts.join(" \\\n  ");
}
