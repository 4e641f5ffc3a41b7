// The answer that is being streamed: its sources as cards, its text as it grows.

import { renderBlocks, withMarkers } from "./live-text.js";

const words = document.querySelector("[data-live-words]").dataset;
const ages = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });

function age(updated) {
  const days = Math.max(0, Math.floor((Date.now() - Date.parse(updated)) / 864e5));
  if (days < 60) return ages.format(-days, "day");
  return days < 730 ? ages.format(-Math.floor(days / 30), "month") : ages.format(-Math.floor(days / 365), "year");
}

/** As the server's cards say it: the section without the title before it, the passage without Markdown's signs. */
function sectionOf(source) {
  const path = source.heading.split(" › ");
  return (path.length > 1 || path[0] === source.title ? path.slice(1) : path).join(" › ");
}

function excerptOf(source) {
  const last = source.heading.split(" › ").pop();
  let text = source.text.trim();
  for (let m; (m = text.match(/^#{1,6} [^\n]*\n+/)) && text.slice(m[0].length).trim();) text = text.slice(m[0].length);
  if (last && text.startsWith(`${last}\n`) && text.slice(last.length).trim()) {
    text = text.slice(last.length).trimStart().replace(/^[=~^-]{3,}\s*\n/, "");
  }
  return text.replace(/\*\*(\S(?:[^*\n]*\S)?)\*\*|`([^`\n]+)`/g, (_, strong, code) => strong || code);
}

export class LiveAnswer {
  constructor(question, { documentPath }) {
    const template = document.querySelector("[data-live-answer]");
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.querySelector(".question").textContent = question;
    this.state = this.element.querySelector("[data-live-state]");
    this.body = this.element.querySelector("[data-live-text]");
    this.documentPath = documentPath;
    this.sources = new Map();
    this.restart();
  }

  restart(reason) {
    this.text = "";
    this.citations = [];
    this.body.replaceChildren();
    if (reason !== undefined) this.state.textContent = words.restarted;
  }

  href(source) {
    const query = new URLSearchParams({ start: source.start, end: source.end });
    return `${this.documentPath.replace(/0{8}-0{4}-0{4}-0{4}-0{12}/, source.document_id)}?${query}#passage`;
  }

  showSources(sources) {
    const section = this.element.querySelector(".sources");
    const list = section.querySelector("ol");
    const card = document.querySelector("[data-live-source]").content.firstElementChild;
    list.replaceChildren(...sources.map((source) => {
      this.sources.set(source.n, source);
      const made = card.cloneNode(true);
      made.dataset.source = source.n;
      made.querySelector("a").href = this.href(source);
      made.querySelector(".source-n").textContent = source.n;
      made.querySelector(".source-title").textContent = source.title;
      made.querySelector(".source-path").textContent = source.uri;
      made.querySelector(".source-place").textContent = sectionOf(source);
      made.querySelector(".source-text").textContent = excerptOf(source);
      const page = made.querySelector("[data-page]"), updated = made.querySelector("[data-age]"), score = made.querySelector("[data-score]");
      if (source.page) page.textContent = `${page.dataset.page} ${source.page}`;
      else page.remove();
      updated.textContent = `${updated.dataset.age} ${age(source.updated_at)}`;
      score.textContent = `${score.dataset.score} ${source.score.toFixed(2)}`;
      return made;
    }));
    section.hidden = !sources.length;
    if (sources.length) this.state.textContent = words.writing;
  }

  add(text) {
    this.text += text;
    this.schedule();
  }

  cite(citation) {
    this.citations.push(citation);
    this.schedule();
  }

  schedule() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.body.replaceChildren(renderBlocks(withMarkers(this.text, this.citations), (n) => this.link(n)));
    });
  }

  link(n) {
    const source = this.sources.get(n);
    if (!source) return "";
    const link = document.createElement("a");
    link.className = "cite";
    link.href = this.href(source);
    link.dataset.cite = n;
    link.setAttribute("aria-label", `${words.source} ${n}: ${source.title}`);
    link.textContent = n;
    return link;
  }

  end(state, text) {
    this.element.dataset.state = state;
    this.element.removeAttribute("aria-busy");
    this.state.textContent = text;
    this.state.hidden = !text;
  }

  /** The server's rendering takes this one's place. */
  replace(html) {
    const parsed = new DOMParser().parseFromString(html, "text/html").querySelector("article");
    if (!parsed) return;
    if (this.frame) cancelAnimationFrame(this.frame);
    this.element.replaceWith(parsed);
    this.element = parsed;
    window.htmx?.process(parsed);
    parsed.dispatchEvent(new CustomEvent("ragsite:answer", { bubbles: true }));
  }
}
