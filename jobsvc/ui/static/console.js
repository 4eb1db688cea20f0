"use strict";
// The pages are complete without this script. It refreshes them, sends actions to the API, and reads keys.
const REFRESH_MS = 2000;
const find = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const parse = text => { try { return JSON.parse(text); } catch { return {}; } };
const make = (name, properties) => Object.assign(document.createElement(name), properties);
const on = (name, act) => document.addEventListener(name, act);

// Theme: set before the first paint.
const root = document.documentElement;
const stored = (() => { try { return localStorage; } catch { return {}; } })(); // without cookies there is none
if (stored.theme) root.dataset.theme = stored.theme;
function switchTheme() {
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  stored.theme = root.dataset.theme = isDark ? "light" : "dark";
}

function notify(text, isError = false, link = "") {
  const line = make("p", {textContent: `${text} `, className: isError ? "error" : ""});
  if (link) line.append(make("a", {href: link, textContent: "Show"}));
  find("#notices").append(line);
  setTimeout(() => line.remove(), isError ? 12000 : 6000);
}

// Live refresh: not in a hidden tab, and not while a question is open.
const refresh = () => window.htmx?.trigger("#main", "refresh"); // undefined until a slow page has loaded
// Groups of failures change their order: none moves under the pointer.
const refreshIfSeen = () => document.hidden || find("dialog[open], .groups tr:hover") || refresh();
const timer = setInterval(refreshIfSeen, REFRESH_MS);
on("visibilitychange", () => { refreshIfSeen(); follow(); });

let readAt = "";
function showStale(text) {
  if (!text) readAt = new Date().toLocaleTimeString();
  Object.assign(find("#stale"), {hidden: !text, textContent: `${text} This page shows data of ${readAt}.`});
  document.body.classList.toggle("stale", Boolean(text));
}
function afterRefresh() {
  const icon = find("link[rel=icon]");
  const wanted = Number(find("#main").dataset.failed) ? icon.dataset.alert : icon.dataset.ok;
  if (icon.getAttribute("href") !== wanted) icon.href = wanted;
  countTicks();
  follow();
}
on("htmx:after:swap", afterRefresh);

// Requests to the API have JSON bodies.
on("htmx:before:request", event => {
  const {request, sourceElement: element} = event.detail.ctx;
  request.headers.Accept = "application/problem+json, text/html;q=0.9"; // a page, or why there is none
  if (request.method === "GET") return;
  const name = request.form && find("[data-url-name]", request.form);
  if (name && !name.reportValidity()) return event.preventDefault();
  if (name) request.action = request.action.replace("{name}", encodeURIComponent(name.value));
  request.headers["Content-Type"] = "application/json";
  try {
    request.body = request.form?.dataset.json === undefined ? "{}" : readForm(request.form);
  } catch (problem) {
    event.preventDefault();
    showProblem(element, problem);
  }
});
on("htmx:after:request", event => {
  const {sourceElement, request, response, text} = event.detail.ctx;
  const problem = response.status < 400 ? null : {detail: "The service answered with an error.", ...parse(text)};
  if (sourceElement.id === "main" && [401, 403].includes(response.status)) clearInterval(timer); // each would ask for a key
  if (sourceElement.id === "main") showStale(problem ? problem.detail : "");
  else if (request.method !== "GET") problem ? showProblem(sourceElement, problem) : goOn(request.action, parse(text)).then(answer => finish(sourceElement, response.status, answer), why => showProblem(sourceElement, why));
});
on("htmx:error", event => {
  const ctx = event.detail.ctx;
  if (ctx?.sourceElement.id === "main") showStale("The service can't be reached.");
  else if (ctx && ctx.request.method !== "GET") notify("The service can't be reached; it may have received the request.", true);
});

// A search for a payload is done in parts. Throws the problem of a part that was refused.
async function goOn(url, answer) {
  if (!answer.nextCursor) return answer;
  const response = await fetch(`${url}&cursor=${answer.nextCursor}`, {method: "POST"}).catch(() => new Response(null, {status: 503}));
  const next = parse(await response.text());
  if (!response.ok) throw {detail: `${answer.count.toLocaleString("en")} jobs done, then: ${next.detail || "The service can't be reached."}`};
  return goOn(url, {...next, count: answer.count + next.count});
}

// After a successful action: go to the new page, or say what was done.
function finish(element, status, answer) {
  const {go} = element.dataset, {jobId, name, count} = answer, isOld = status === 200 && jobId;
  const done = isOld ? "No job was made: an unfinished one has the uniqueKey." : element.dataset.done;
  if (go) element.inert = true; // a second click would act again
  if (go && isOld) stored.notice = done;
  if (go) return location.assign(go.replace("{id}", jobId || name));
  all(".edit").forEach(one => one.open = false); // so that it shows the new values
  notify(`${count?.toLocaleString("en") ?? ""} ${count === 1 ? done.replace("jobs", "job") : done}`, false, jobId && `${document.body.dataset.ui}jobs/${jobId}`);
  refresh();
}

// An error of the API: beside the fields that its pointers name, else as a notice.
function showProblem(element, problem) {
  const form = element.closest("form[data-json]");
  all("form small.error").forEach(one => one.remove());
  all("form [aria-invalid]").forEach(one => Object.assign(one, {ariaInvalid: null, ariaDescription: null}));
  const rest = (problem.errors || []).filter(one => !(form && showAtField(form, one)));
  const texts = rest.map(one => `${one.pointer || one.parameter || ""} ${one.detail}`.trim());
  if (rest.length || !problem.errors) notify(texts.join("; ") || problem.detail, true);
  find("form [aria-invalid]")?.focus();
}
function showAtField(form, error) {
  const fits = all("[name]", form).filter(one => `${error.pointer}/`.startsWith(`${one.name}/`) && one.type !== "hidden");
  const field = fits.sort((a, b) => b.name.length - a.name.length)[0];
  if (!field) return false;
  field.closest("details")?.setAttribute("open", "");
  Object.assign(field, {ariaInvalid: "true", ariaDescription: error.detail});
  field.after(make("small", {className: "error", textContent: error.detail}));
  return true;
}

// A form with `data-json` is the body of its request: each field's name is the JSON pointer of its value.
// Numbers and JSON stay text, since JavaScript would round large numbers.
function readForm(form) {
  const body = {};
  for (const field of all("[name]", form)) {
    const value = readField(field);
    if (value === undefined) continue;
    const path = field.name.slice(1).split("/").map(part => part.replace(/~1/g, "/").replace(/~0/g, "~"));
    path.slice(0, -1).reduce((place, part) => place[part] ??= {}, body)[path.at(-1)] = value;
  }
  return write(body);
}
function write(place) {
  if (typeof place === "string") return place;
  return `{${Object.entries(place).map(([name, value]) => `${JSON.stringify(name)}:${write(value)}`).join()}}`;
}
const isJson = text => { try { JSON.parse(text); return true; } catch { return false; } };
function readField({name, type, checked, value, dataset: {kind}}) {
  if (type === "checkbox") return String(checked);
  if (value === "") return undefined;
  if (kind === "time") return JSON.stringify(new Date(value));
  if (kind === "list" && !(value[0] === "[" && isJson(value))) return JSON.stringify(value.split(",").map(one => one.trim()).filter(Boolean));
  if (["json", "list", "number"].includes(kind) && isJson(value)) return value;
  if (kind === "json") throw {errors: [{pointer: name, detail: "This is not JSON."}]};
  return JSON.stringify(value); // a wrong number, too: the API says what is wrong
}
function showCommand(form) {
  try {
    const body = readForm(form).replaceAll("'", "'\\''");
    find(form.dataset.command).textContent = `${form.dataset.curl} -H 'Content-Type: application/json' -d '${body}'`;
  } catch {} // a half-typed value
}

// Questions before an action.
function ask(question, button) {
  const dialog = Object.assign(find("#confirm"), {returnValue: "no"});
  find("#question").textContent = question;
  Object.assign(find("#yes"), {textContent: button.textContent, className: button.className});
  dialog.showModal();
  return new Promise(resolve => dialog.onclose = () => resolve(dialog.returnValue === "yes"));
}
on("htmx:confirm", event => {
  event.preventDefault();
  const {ctx, issueRequest, dropRequest} = event.detail;
  ask(ctx.confirm, ctx.sourceElement).then(isWanted => isWanted ? issueRequest() : dropRequest());
});

// Selected jobs of a list: one request for each.
function countTicks() {
  const number = all("[data-tick]:checked").length, bar = find("#ticked");
  if (bar) [bar.hidden, find("b", bar).textContent] = [!number, `${number} selected`];
}
async function actOnTicked(button) {
  const {textContent, dataset: {method, path, done}} = button;
  const ids = all("[data-tick]:checked").map(one => one.dataset.tick);
  if (!await ask(`${textContent} ${ids.length} ${ids.length === 1 ? "job" : "jobs"}?`, button)) return;
  const send = id => fetch(`${document.body.dataset.api}jobs/${id}${path}`, {method}).catch(() => new Response(null, {status: 503}));
  const refused = (await Promise.all(ids.map(send))).filter(one => !one.ok);
  const why = refused.length ? parse(await refused[0].text()).detail || "" : "";
  notify(`${ids.length - refused.length} of ${ids.length} ${done} ${why}`, refused.length > 0);
  all("[data-tick]:checked, [data-tick-all]").forEach(one => one.checked = false);
  refresh();
}

// The event stream of an unfinished job: each event refreshes the page. Browsers have few connections for hidden tabs.
let stream = null, pending = 0;
function follow() {
  const url = !document.hidden && find("[data-events]")?.dataset.events || "";
  if ((stream?.path || "") === url) return;
  stream?.close();
  stream = url ? Object.assign(new EventSource(url), {path: url}) : null;
  const soon = () => pending ||= setTimeout(() => { pending = 0; refreshIfSeen(); }, 150);
  for (const kind of ["status", "progress", "log"]) stream?.addEventListener(kind, soon);
}

function copy(button) {
  const area = make("textarea", {value: button.dataset.copy || find("code", button.parentElement).textContent});
  document.body.append(area);
  area.select();
  document.execCommand("copy"); // navigator.clipboard needs TLS
  area.remove();
  notify("Copied.");
  button.classList.add("copied");
  setTimeout(() => button.classList.remove("copied"), 1500);
}

on("click", event => {
  const button = event.target.closest("button");
  if (!button) return;
  const {copy: text, themeSwitch, help, path} = button.dataset;
  if (text !== undefined) copy(button);
  if (themeSwitch !== undefined) switchTheme();
  if (help !== undefined) find("#help").showModal();
  if (path !== undefined) actOnTicked(button);
});
on("change", ({target}) => {
  if (target.dataset.tickAll !== undefined) all("[data-tick]").forEach(one => one.checked = target.checked);
  if (target.dataset.submit !== undefined && !isByKeys) target.form.requestSubmit();
  countTicks();
});
on("input", ({target}) => target.form?.dataset.command && showCommand(target.form));

// Keys. `g` and a letter goes to a page. A list that is changed by keys is not sent at once: each key changes it.
let isGoing = false, isByKeys = false;
on("pointerdown", () => isByKeys = false);
on("submit", event => event.target.dataset.json !== undefined && event.preventDefault()); // also before htmx is there
on("keydown", event => {
  isByKeys = true;
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
  const keyed = isGoing ? `nav [data-key="${event.key}"]` : `:not(nav) > [data-key="${event.key}"]`;
  isGoing = event.key === "g" && !isGoing;
  if (event.key === "/") find(".search input").focus();
  else if (event.key === "?") find("#help").showModal();
  else if (/^[a-z]$/.test(event.key)) return find(keyed)?.click();
  else return;
  event.preventDefault();
});

on("DOMContentLoaded", () => {
  showStale("");
  afterRefresh();
  if (stored.notice) notify(stored.notice);
  delete stored.notice;
  all("form[data-command]").forEach(showCommand);
});
