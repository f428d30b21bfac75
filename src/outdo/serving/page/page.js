// The page: asks for one input or for many, and says honestly what came back. Text only ever enters as textContent.

import { WORDS } from "./words.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 4;            // requests of a batch under way
const SMALLEST_DROP = 0.02;   // of probability: less is no place to point at

let language = remembered() ?? (navigator.language.startsWith("zh") ? "zh" : "en");
let key = "";
let model = null;             // what /v2/models/NAME says
let report = null;            // what came with the model, if anything
let shown = null;             // {file, answer, ms, heat}: the one input on the page
let batch = null;             // {rows: [{name, input, answer, ms, error}], stopped}

// ── words ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function say(word, values = {}) {
  const text = WORDS[word]?.[language === "zh" ? 1 : 0] ?? word;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function remembered() {
  try { return localStorage.getItem("language"); } catch { return null; }
}

function speak(chosen) {
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-Hans" : "en";
  for (const part of document.querySelectorAll("[data-say]")) part.textContent = say(part.dataset.say);
  for (const button of document.querySelectorAll(".language"))
    button.setAttribute("aria-pressed", button.dataset.language === chosen);
  if (model) showModel();
  if (report) showReport();
  if (shown?.answer) showAnswer();
  if (batch) showBatch();
}

const percent = (p) => `${(100 * p).toFixed(1)} %`;

function figure(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "fraction") return percent(value);
  const short = (number) => number.toLocaleString(language, { maximumSignificantDigits: 3 });
  if (unit === "seconds") return `${short(1000 * value)} ms`;
  if (unit === "bytes") return `${short(value / 1e6)} MB`;
  if (unit === "operations") return `${short(value / 1e6)} M`;
  return unit === "per second" ? `${short(value)} /s` : value.toFixed(3);
}

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ── the server ─────────────────────────────────────────────────────────────────────────────────────────────────────

class Refused extends Error {
  constructor(status, message, wait) { super(message); this.status = status; this.wait = wait; }
}

async function fetched(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused(0, say("offline"), 1);
  }
  const said = await response.json().catch(() => ({}));
  if (response.ok) return said;
  const message = response.status === 429 ? say("busy") : said.error ?? response.statusText;
  throw new Refused(response.status, message, Number(response.headers.get("Retry-After")) || 1);
}

function post(path, input) {
  const isText = typeof input === "string";
  const type = isText ? "application/json" : input.type.startsWith("image/") ? input.type : "application/octet-stream";
  return fetched(`${path}?model=${encodeURIComponent(model.name)}`, {
    method: "POST", headers: { "Content-Type": type }, body: isText ? JSON.stringify({ text: input }) : input });
}

async function ask(input) {
  const begin = performance.now();
  const answered = await post("predict", input);
  return { answer: answered.answers[0], server: answered.ms, ms: performance.now() - begin };
}

function trouble(error) {
  $("trouble").textContent = error ? error.message : "";
  if (error?.status === 401) {
    $("key-form").hidden = false;
    $("trouble").textContent = key ? say("wrong key") : "";
    $("key").focus();
  }
}

// ── the model ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function start() {
  try {
    const { models } = await fetched("v2/models");
    $("key-form").hidden = true;
    trouble(null);
    $("models").replaceChildren(...models.map((name) => new Option(name, name)));
    $("choose-model").hidden = models.length < 2;
    await choose(models[0]);
  } catch (error) { trouble(error); }
}

async function choose(name) {
  model = await fetched(`v2/models/${encodeURIComponent(name)}`);
  shown = batch = report = null;
  for (const id of ["answer", "looking", "batch"]) $(id).hidden = true;
  $("nothing").hidden = false;
  clearPreview();
  showModel();
  $("desk").hidden = false;
  $("report").hidden = true;
  if (!model.parameters.report) return;
  report = await fetched(`report?model=${encodeURIComponent(name)}`);
  showReport();
}

function showModel() {
  const { kind, classes } = model.parameters;
  const isText = kind === "text";
  const some = classes.slice(0, 8).join(language === "zh" ? "、" : ", ");
  const more = classes.length > 8 ? say("and more", { n: classes.length - 8 }) : "";
  document.title = say("title", { name: model.name });
  $("title").textContent = document.title;
  $("deck").textContent = say("deck", { count: classes.length, classes: some + more });
  $("which").textContent = `outdo · ${say("version", { version: model.versions[0] })}`;
  $("tab-one").textContent = say(isText ? "one text" : "one image");
  $("tab-many").textContent = say(isText ? "many texts" : "many images");
  for (const id of ["drop-one", "drop-many"]) $(id).hidden = isText;
  for (const id of ["ask-text", "ask-texts"]) $(id).hidden = !isText;
}

function showReport() {
  const of = (role) => report.contestants.find((one) => one.role === role)?.name;
  const [before, after] = [of("before"), of("after")];
  $("report-note").textContent = say("report note", { n: report.data.n.test, before });
  $("axes").replaceChildren(...report.axes.map((axis) => {
    const row = element("tr");
    const name = element("th", say(`axis.${axis.axis}`).replace(/^axis\./, "").replace(/_/g, " "));
    name.scope = "row";
    const verdict = axis.comparisons.find((c) => c.of === after && c.against === before)?.verdict;
    const mark = { better: "v v-better", worse: "v v-worse" }[verdict] ?? "v v-none";
    const cell = element("td", "", "v-cell");
    cell.append(element("span", verdict ? say(verdict) : "", mark));
    row.append(name, element("td", figure(axis.values[before], axis.unit), "num"),
      element("td", figure(axis.values[after], axis.unit), "num to"), cell);
    return row;
  }));
  $("report").hidden = false;
}

// ── one input ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function askOne(input) {
  trouble(null);
  const mine = shown = { input, name: input.name ?? "" };
  $("looking").hidden = true;
  if (typeof input !== "string") showPreview(input);
  $("nothing").hidden = true;
  $("answer").hidden = false;
  $("result").classList.add("busy");
  $("verdict").textContent = say("asking");
  try {
    Object.assign(mine, await ask(input));
    if (mine === shown) showAnswer();
  } catch (error) {
    if (mine !== shown) return;
    $("answer").hidden = true;
    trouble(error);
  } finally {
    if (mine === shown) $("result").classList.remove("busy");
  }
}

function showAnswer() {
  const { answer, ms, server } = shown;
  $("verdict").textContent = answer.sure ? answer.label : say("not sure");
  $("verdict").classList.toggle("unsure", !answer.sure);
  $("why").textContent = answer.sure ? "" : say("perhaps", {
    label: answer.label, p: percent(answer.probability), threshold: percent(model.parameters.threshold) });
  $("answers").replaceChildren(...answer.classes.map(({ label, probability }) => {
    const item = element("li");
    const track = element("span", "", "track");
    const bar = element("i");
    bar.style.width = percent(probability).replace(" ", "");
    track.append(bar);
    item.append(element("bdi", label), element("span", percent(probability), "share"), track);
    return item;
  }));
  $("time").textContent = say("took", { all: ms.toFixed(0), server: server.toFixed(0) });
  $("looking").hidden = model.parameters.kind !== "image";
  showHeat();
}

function showPreview(file) {
  clearPreview();
  const image = $("preview");
  image.onerror = () => { clearPreview(); $("file-name").textContent = say("no preview", { name: file.name }); };
  image.src = URL.createObjectURL(file);
  image.alt = file.name;
  $("file-name").textContent = file.name;
  $("drop-one").classList.add("full");
  document.querySelector("#drop-one .invite").hidden = true;
  document.querySelector("#drop-one .stage").hidden = false;
}

function clearPreview() {
  const image = $("preview");
  image.onerror = null;
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  $("heat").hidden = true;
  $("file-name").textContent = "";
  $("drop-one").classList.remove("full");
  document.querySelector("#drop-one .invite").hidden = false;
  document.querySelector("#drop-one .stage").hidden = true;
}

// ── where it looks ─────────────────────────────────────────────────────────────────────────────────────────────────

async function look() {
  const mine = shown;
  mine.looking = !mine.looking;
  showHeat();
  if (!mine.looking || mine.heat) return;
  try {
    mine.heat = await post("explain", mine.input);
  } catch (error) {
    mine.looking = false;
    trouble(error);
  }
  if (mine === shown) showHeat();
}

function showHeat() {
  const { looking, heat } = shown;
  $("look").setAttribute("aria-pressed", Boolean(looking));
  const most = heat ? Math.max(...heat.heat.flat()) : 0;
  $("heat").hidden = !(looking && most >= SMALLEST_DROP);
  $("look-note").textContent = !looking ? "" : !heat ? say("looking")
    : say(most >= SMALLEST_DROP ? "heat" : "no heat", { label: heat.label, drop: (100 * most).toFixed(0) });
  if (!$("heat").hidden) drawHeat($("heat"), heat.heat, most);
}

function drawHeat(canvas, heat, most) {
  const [rows, columns] = [heat.length, heat[0].length];
  Object.assign(canvas, { width: columns, height: rows });  // the browser smooths it when it enlarges it
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--miss");
  const brush = canvas.getContext("2d");
  heat.forEach((row, y) => row.forEach((drop, x) => {
    brush.fillStyle = `rgba(${colour}, ${0.75 * drop / most})`;
    brush.fillRect(x, y, 1, 1);
  }));
}

// ── many inputs ────────────────────────────────────────────────────────────────────────────────────────────────────

async function askMany(inputs) {
  trouble(null);
  if (batch) batch.stopped = true;
  const mine = batch = { rows: inputs.map((input) => ({ input, name: input.name ?? input })), stopped: false };
  showBatch();
  const waiting = mine.rows.values();  // shared: each worker takes the next one
  const work = async () => {
    for (const row of waiting) {
      if (mine.stopped) return;
      await answerRow(row, mine);
      if (mine === batch) showRow(row);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (mine === batch) { mine.stopped = true; showBatch(); }
}

async function answerRow(row, mine) {
  while (!mine.stopped) {
    try {
      Object.assign(row, await ask(row.input));
      return;
    } catch (error) {
      if (error.status !== 429) { row.error = error.message; return; }
      await new Promise((wake) => setTimeout(wake, 1000 * error.wait));
    }
  }
}

function showBatch() {
  $("batch").hidden = false;
  $("rows").replaceChildren(...batch.rows.map((row) => {
    row.line = element("tr");
    fillRow(row);
    return row.line;
  }));
  countBatch();
}

function showRow(row) { fillRow(row); countBatch(); }

function fillRow({ line, name, answer, ms, error }) {
  const head = element("th");
  head.scope = "row";
  head.append(element("bdi", name));
  const cells = error ? [element("td", error, "error"), element("td"), element("td")]
    : answer ? [element("td", answer.sure ? answer.label : `${say("not sure")} (${answer.label})`, answer.sure ? "" : "unsure"),
      element("td", percent(answer.probability), "num"), element("td", `${ms.toFixed(0)} ms`, "num")]
    : [element("td", "…"), element("td"), element("td")];
  line.replaceChildren(head, ...cells);
}

function countBatch() {
  const done = batch.rows.filter((row) => row.answer).length;
  const wrong = batch.rows.filter((row) => row.error).length;
  $("done").max = batch.rows.length;
  $("done").value = done + wrong;
  $("count").textContent = say("count", { done, all: batch.rows.length, wrong });
  $("stop").disabled = batch.stopped;
  $("save").disabled = done === 0;
}

function saveBatch() {
  const lines = batch.rows.map(({ name, answer, ms, error }) => answer
    ? [name, answer.label, answer.probability, answer.sure, ms.toFixed(1), ""] : [name, "", "", "", "", error ?? ""]);
  const text = [["input", "label", "probability", "sure", "ms", "error"], ...lines]
    .map((line) => line.map(csvCell).join(",")).join("\r\n");
  const link = element("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text, "\r\n"], { type: "text/csv;charset=utf-8" }));
  link.download = `${model.name}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function csvCell(value) {
  const text = String(value);
  const harmless = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;  // no formula for Excel
  return /[",\r\n]/.test(harmless) ? `"${harmless.replace(/"/g, '""')}"` : harmless;
}

// ── what people do ─────────────────────────────────────────────────────────────────────────────────────────────────

function openTab(tab) {
  for (const other of document.querySelectorAll("[role=tab]")) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
}

function given(files) {
  const images = [...files];
  if (!images.length || model?.parameters.kind !== "image") return;
  if (images.length > 1 || !$("many").hidden) {
    openTab($("tab-many"));
    askMany(images);
  } else askOne(images[0]);
}

function listen() {
  for (const button of document.querySelectorAll(".language"))
    button.addEventListener("click", () => {
      speak(button.dataset.language);
      try { localStorage.setItem("language", language); } catch { /* private windows may forbid it */ }
    });
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.addEventListener("click", () => openTab(tab));
    tab.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const other = tab === $("tab-one") ? $("tab-many") : $("tab-one");
      openTab(other);
      other.focus();
    });
  }
  for (const id of ["file-one", "file-many"])
    $(id).addEventListener("change", (event) => { given(event.target.files); event.target.value = ""; });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    for (const drop of document.querySelectorAll(".drop")) drop.classList.add("over");
  });
  for (const end of ["dragleave", "drop"]) document.addEventListener(end, () => {
    for (const drop of document.querySelectorAll(".drop")) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => { event.preventDefault(); given(event.dataTransfer.files); });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) { event.preventDefault(); given(event.clipboardData.files); }
  });
  for (const [form, act] of Object.entries({
    "ask-text": () => askOne($("text").value),
    "ask-texts": () => askMany($("texts").value.split("\n").map((line) => line.trim()).filter(Boolean)),
    "key-form": () => { key = $("key").value.trim(); start(); },
  })) $(form).addEventListener("submit", (event) => { event.preventDefault(); act(); });
  for (const id of ["text", "texts"]) $(id).addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form.requestSubmit();
  });
  $("models").addEventListener("change", (event) => choose(event.target.value).catch(trouble));
  $("look").addEventListener("click", look);
  $("stop").addEventListener("click", () => { batch.stopped = true; countBatch(); });
  $("save").addEventListener("click", saveBatch);
}

listen();
speak(language);
start();
