// Markdown of a model's answer as DOM nodes. What a model says is hostile text: no markup of
// its own is ever parsed as HTML, links go to http(s) and mailto only, and images are links,
// so that nothing loads by itself.
import { el } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const MAX_DEPTH = 12;

/** Shows `text` in `container`; blocks that did not change since the last call are kept. */
export function renderMarkdown(container, text) {
  const blocks = splitBlocks(text.split("\n"));
  const kept = container.weftBlocks ?? [];
  blocks.forEach((block, at) => {
    const source = block.lines.join("\n");
    if (kept[at] === source && container.childNodes[at]) return;
    const node = buildBlock(block, 0);
    if (container.childNodes[at]) container.childNodes[at].replaceWith(node);
    else container.append(node);
    kept[at] = source;
  });
  while (container.childNodes.length > blocks.length) container.lastChild.remove();
  kept.length = blocks.length;
  container.weftBlocks = kept;
}

function splitBlocks(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const kind = kindOf(lines, at);
    const end = endOf(kind, lines, at);
    blocks.push({ kind, lines: lines.slice(at, end) });
    at = end;
  }
  return blocks;
}

function kindOf(lines, at) {
  const line = lines[at];
  if (FENCE.test(line)) return "code";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (QUOTE.test(line)) return "quote";
  if (ITEM.test(line)) return "list";
  if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) return "table";
  return "paragraph";
}

function endOf(kind, lines, start) {
  let at = start + 1;
  if (kind === "heading" || kind === "rule") return at;
  if (kind === "code") {
    const fence = FENCE.exec(lines[start])[1];
    while (at < lines.length && !isFenceEnd(lines[at], fence)) at += 1;
    return Math.min(at + 1, lines.length);
  }
  if (kind === "list") return endOfList(lines, start);
  while (at < lines.length && lines[at].trim()) {
    if (kind === "table" ? !lines[at].includes("|") : isNewBlock(kind, lines, at)) break;
    at += 1;
  }
  return at;
}

function isFenceEnd(line, fence) {
  const text = line.trim();
  return text.length >= fence.length && text === fence[0].repeat(text.length);
}

function isNewBlock(kind, lines, at) {
  const next = kindOf(lines, at);
  return kind === "quote" ? next !== "quote" && next !== "paragraph" : next !== "paragraph";
}

function endOfList(lines, start) {
  let at = start + 1;
  while (at < lines.length) {
    const line = lines[at];
    const isInside = ITEM.test(line) || /^\s{2,}\S/.test(line);
    if (!line.trim()) {
      const next = lines[at + 1] ?? "";
      if (!(ITEM.test(next) || /^\s{2,}\S/.test(next))) return at;
    } else if (!isInside && (kindOf(lines, at) !== "paragraph" || !lines[at - 1].trim())) {
      return at;
    }
    at += 1;
  }
  return at;
}

const BUILDERS = {
  code: ({ lines }) => {
    const [, fence, language] = FENCE.exec(lines[0]);
    const isClosed = lines.length > 1 && isFenceEnd(lines.at(-1), fence);
    const body = lines.slice(1, isClosed ? -1 : undefined).join("\n");
    const box = el("div", { class: "code" });
    if (language) box.append(el("span", { class: "code-lang" }, language.slice(0, 40)));
    box.append(el("pre", { tabindex: "0" }, el("code", {}, body)));
    return box;
  },
  heading: ({ lines }, depth) => {
    const [, marks, text] = HEADING.exec(lines[0]);
    return inlineInto(el(`h${Math.min(6, marks.length + 2)}`), text, depth);
  },
  rule: () => el("hr"),
  quote: ({ lines }, depth) => {
    const box = el("blockquote");
    box.append(...buildAll(lines.map((line) => line.replace(QUOTE, "")), depth));
    return box;
  },
  list: buildList,
  table: buildTable,
  paragraph: ({ lines }, depth) => inlineInto(el("p"), lines.map((l) => l.trimStart()).join("\n"), depth),
};

function buildBlock(block, depth) {
  if (depth > MAX_DEPTH) return el("p", {}, block.lines.join("\n"));
  return BUILDERS[block.kind](block, depth);
}

function buildAll(lines, depth) {
  return splitBlocks(lines).map((block) => buildBlock(block, depth + 1));
}

function buildList({ lines }, depth) {
  const [, indent, bullet] = ITEM.exec(lines[0]);
  const isOrdered = /\d/.test(bullet);
  const list = el(isOrdered ? "ol" : "ul");
  if (isOrdered && parseInt(bullet, 10) !== 1) list.setAttribute("start", parseInt(bullet, 10));
  let item = [];
  const close = () => {
    if (item.length) list.append(buildItem(item, depth));
    item = [];
  };
  for (const line of lines) {
    const found = ITEM.exec(line);
    if (found && found[1].length <= indent.length + 1) {
      close();
      item.push(found[3]);
    } else {
      item.push(line.replace(new RegExp(`^\\s{0,${indent.length + (isOrdered ? 3 : 2)}}`), ""));
    }
  }
  close();
  return list;
}

function buildItem(lines, depth) {
  const item = el("li");
  const blocks = buildAll(lines, depth);
  if (blocks[0]?.tagName === "P") item.append(...blocks[0].childNodes, ...blocks.slice(1));
  else item.append(...blocks);
  return item;
}

function buildTable({ lines }, depth) {
  const rows = [lines[0], ...lines.slice(2)].map(cellsOf);
  const table = el("table");
  const head = el("tr");
  for (const cell of rows[0]) head.append(inlineInto(el("th"), cell, depth));
  const body = el("tbody");
  for (const cells of rows.slice(1)) {
    const row = el("tr");
    rows[0].forEach((_, at) => row.append(inlineInto(el("td"), cells[at] ?? "", depth)));
    body.append(row);
  }
  table.append(el("thead", {}, head), body);
  return table;
}

function cellsOf(line) {
  const text = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return text.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// ---- Inline ----------------------------------------------------------------
// Each rule: a pattern that must match at the place, and what it makes of the match.
const INLINE = [
  [/^\\([\\`*_{}[\]()#+\-.!|<>~])/, (m) => document.createTextNode(m[1])],
  [/^(`+)([\s\S]*?[^`])\1(?!`)/, (m) => el("code", {}, m[2].replace(/^ (.+) $/, "$1"))],
  [/^!\[([^\]]{0,300})\]\(\s*<?([^\s)>]{1,2000})>?[^)]{0,300}\)/, (m) => link(m[2], [m[1] || m[2]])],
  [
    /^\[([^\]]{1,500})\]\(\s*<?((?:[^\s()<>]|\([^\s()]*\)){1,2000})>?(?:\s+["'(][^)]{0,300})?\)/,
    (m, depth) => link(m[2], inlineNodes(m[1], depth + 1)),
  ],
  [/^<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/, (m) => link(m[1], [m[1]])],
  [/^https?:\/\/[^\s<>"'`]{1,2000}[^\s<>"'`.,;:!?)\]*_]/, (m) => link(m[0], [m[0]])],
  [/^(\*\*|__)(?=\S)([\s\S]{1,4000}?\S)\1/, (m, depth) => wrap("strong", m[2], depth)],
  [/^\*(?=[^\s*])([\s\S]{0,4000}?[^\s*])\*(?!\*)/, (m, depth) => wrap("em", m[1], depth)],
  [/^_(?=[^\s_])([\s\S]{0,4000}?[^\s_])_(?!\w)/, (m, depth) => wrap("em", m[1], depth)],
  [/^~~(?=\S)([\s\S]{1,4000}?\S)~~/, (m, depth) => wrap("del", m[1], depth)],
  [/^(?: {2,}|\\)\n/, () => el("br")],
];
const SPECIAL = /[\\`!\[<h*_~ ]/g;

function inlineInto(element, text, depth) {
  element.append(...inlineNodes(text, depth));
  return element;
}

function inlineNodes(text, depth) {
  if (depth > MAX_DEPTH) return [text];
  const nodes = [];
  let plain = "";
  let at = 0;
  while (at < text.length) {
    const made = inlineAt(text, at, depth);
    if (made) {
      if (plain) nodes.push(plain);
      plain = "";
      nodes.push(made.node);
      at += made.length;
    } else {
      SPECIAL.lastIndex = at + 1;
      const next = SPECIAL.exec(text)?.index ?? text.length;
      plain += text.slice(at, next);
      at = next;
    }
  }
  if (plain) nodes.push(plain);
  return nodes;
}

function inlineAt(text, at, depth) {
  // A word may hold underscores and addresses start at a border: look one letter back.
  const isInWord = at > 0 && /\w/.test(text[at - 1]);
  if (isInWord && (text[at] === "_" || text[at] === "h")) return null;
  const rest = text.slice(at, at + 8200);
  for (const [pattern, make] of INLINE) {
    const match = pattern.exec(rest);
    if (match) return { node: make(match, depth), length: match[0].length };
  }
  return null;
}

function wrap(name, text, depth) {
  return inlineInto(el(name), text, depth + 1);
}

function link(href, children) {
  let url = null;
  try {
    url = new URL(href);
  } catch {
    // Not an address of its own: shown as text.
  }
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) {
    return el("span", {}, ...children);
  }
  const attributes = { href: url.href, rel: "noopener noreferrer nofollow", target: "_blank" };
  return el("a", attributes, ...children);
}
