// Markdown that is still being written, as plain elements: paragraphs, lists, headings, code. Only ever text nodes;
// the server's rendering takes its place when the answer is complete.

const OPEN = "\u2045", CLOSE = "\u2046"; // around a citation's number
const MARKERS = new RegExp(`${OPEN}(\\d+)${CLOSE}`, "g");
const INLINE = new RegExp(`(${OPEN}\\d+${CLOSE}|\`[^\`\\n]+\`|\\*\\*[^*\\n]+\\*\\*)`);

/** The text with citations' numbers behind what they cite; offsets are in characters, not in UTF-16 units. */
export function withMarkers(text, citations) {
  const characters = Array.from(text, (c) => (c === OPEN ? "[" : c === CLOSE ? "]" : c));
  const seen = new Set();
  for (const { source, end } of [...citations].sort((a, b) => b.end - a.end || b.source - a.source)) {
    if (end > characters.length || seen.has(`${source}:${end}`)) continue;
    seen.add(`${source}:${end}`);
    characters.splice(end, 0, `${OPEN}${source}${CLOSE}`);
  }
  return characters.join("");
}

function inline(parent, text, cite) {
  for (const part of text.split(INLINE)) {
    if (!part) continue;
    const first = part[0];
    if (first === OPEN) parent.append(cite(Number(part.slice(1, -1))));
    else if (first === "`" && part.length > 2) parent.append(element("code", part.slice(1, -1)));
    else if (part.startsWith("**") && part.length > 4) parent.append(element("strong", part.slice(2, -2)));
    else parent.append(part);
  }
}

function element(tag, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

/** Elements for the text; `cite(n)` makes the link of a citation. */
export function renderBlocks(text, cite) {
  const out = document.createDocumentFragment();
  let paragraph = null, list = null, code = null, fence = "";
  const close = () => { paragraph = list = null; };
  for (const line of text.split("\n")) {
    const opening = line.match(/^\s*(```+|~~~+)/);
    if (code) {
      const numbers = [...line.matchAll(MARKERS)];
      const bare = line.replace(MARKERS, "");
      const ends = bare.trim().startsWith(fence) && !bare.trim().replaceAll(fence[0], "");
      if (!ends) code.append(`${bare}\n`);
      if (numbers.length) {
        const behind = element("p");
        numbers.forEach((match) => behind.append(cite(Number(match[1]))));
        out.append(behind);
      }
      if (ends) code = null;
    } else if (opening) {
      close();
      fence = opening[1];
      code = element("code");
      const pre = element("pre");
      pre.append(code);
      out.append(pre);
    } else if (!line.trim()) {
      close();
    } else if (/^\s*\|/.test(line)) {
      close();
      const row = element("div");
      row.className = "live-row";
      inline(row, line, cite);
      out.append(row);
    } else if (/^#{1,6} /.test(line)) {
      close();
      const heading = element("h4");
      inline(heading, line.replace(/^#+ /, ""), cite);
      out.append(heading);
    } else if (/^\s*(?:[-*+]|\d{1,3}[.)]) /.test(line)) {
      paragraph = null;
      const tag = /^\s*\d/.test(line) ? "ol" : "ul";
      if (!list || list.localName !== tag) out.append((list = element(tag)));
      const item = element("li");
      inline(item, line.replace(/^\s*(?:[-*+]|\d{1,3}[.)]) /, ""), cite);
      list.append(item);
    } else if (list && /^\s/.test(line)) {
      list.lastElementChild.append(" ");
      inline(list.lastElementChild, line.trim(), cite);
    } else {
      list = null;
      if (paragraph) paragraph.append(" ");
      else out.append((paragraph = element("p")));
      inline(paragraph, line, cite);
    }
  }
  return out;
}
