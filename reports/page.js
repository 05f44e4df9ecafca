// What the page does beyond being read. Without it, everything can still be read.
"use strict";
(() => {
const root = document.documentElement;

// Colours: those of the system until the reader chooses; remembered where the browser allows.
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const remembered = (theme) => {
  try {
    if (theme) localStorage.setItem("report-theme", theme);
    return localStorage.getItem("report-theme");
  } catch {
    return null;
  }
};
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches;
const chosen = remembered();
if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;

const startTheme = () => {
  const button = document.getElementById("theme");
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    show();
  });
  systemIsDark.addEventListener("change", show);
  show();
};

// Contents: a closed bar on narrow windows; the place that is being read is marked.
const startContents = () => {
  const nav = document.querySelector(".contents");
  const details = nav.querySelector("details");
  const narrow = matchMedia("(max-width: 63.99rem)");
  const fit = () => { details.open = !narrow.matches; };
  narrow.addEventListener("change", fit);
  fit();
  nav.addEventListener("click", (event) => {
    if (narrow.matches && event.target.closest("a")) details.open = false;
  });
  nav.classList.toggle("folded", nav.querySelectorAll("details > ol > li > ol").length > 2);
  const links = new Map();
  for (const link of nav.querySelectorAll("a")) links.set(link.hash.slice(1), link);
  const mark = (id) => {
    const link = links.get(id);
    if (!link) return;
    for (const other of nav.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    for (const other of nav.querySelectorAll(".here")) other.classList.remove("here");
    link.setAttribute("aria-current", "true");
    link.closest(".contents details > ol > li").classList.add("here");
    if (!narrow.matches) {
      const box = link.getBoundingClientRect(), frame = nav.getBoundingClientRect();
      if (box.top < frame.top || box.bottom > frame.bottom) nav.scrollTop += box.top - frame.top - 80;
    }
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) mark(entry.target.id);
  }, { rootMargin: "-8% 0px -85% 0px" });
  const parts = document.querySelectorAll(".chapter, .part");
  if (parts.length) mark(links.has(parts[0].id) ? parts[0].id : parts[0].querySelector(".part")?.id);
  for (const part of parts) watcher.observe(part);
};

// Tables: by number where a column has numbers, else by text; what is missing stays last.
const order = new Intl.Collator("en", { numeric: true });
const keyOf = (row, place) => {
  const cell = row.cells[place], value = cell.dataset.value;
  if (value === undefined) return { kind: 1, text: cell.textContent.trim() };
  return value === "" ? { kind: 2 } : { kind: 0, number: Number(value) };
};
const compare = (a, b, sign) => {
  if (a.kind !== b.kind) return a.kind - b.kind;
  if (a.kind === 0) return sign * (a.number - b.number || 0);
  return a.kind === 1 ? sign * order.compare(a.text, b.text) : 0;
};
const sortTable = (table, original, place, direction) => {
  const body = table.tBodies[0];
  const sign = direction === "descending" ? -1 : 1;
  const keyed = original.map((row) => ({ row, key: keyOf(row, place) }));
  if (direction !== "none") keyed.sort((a, b) => compare(a.key, b.key, sign));
  body.append(...keyed.map(({ row }) => row));
};
const startTable = (table) => {
  const original = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];
  const next = { none: "ascending", ascending: "descending", descending: "none" };
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const direction = next[head.getAttribute("aria-sort") ?? "none"];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (direction !== "none") head.setAttribute("aria-sort", direction);
      sortTable(table, original, place, direction);
      const how = direction === "none" ? "in the original order" : `sorted by ${head.dataset.title}, ${direction}`;
      document.getElementById("status").textContent = `${table.caption.textContent}: ${how}`;
    });
  });
};

// Figures: the whole window for one picture; the wheel, the buttons and + - 0 zoom.
const startLightbox = () => {
  const dialog = document.getElementById("lightbox");
  const stage = dialog.querySelector(".stage");
  const most = 24;
  let image = null, opener = null, scale = 1;
  const fitted = () => Math.min(stage.clientWidth, stage.clientHeight * image.naturalWidth / image.naturalHeight);
  const zoom = (factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
    const before = scale;
    scale = factor === 0 ? 1 : Math.min(most, Math.max(1, scale * factor));
    const left = stage.scrollLeft + x, top = stage.scrollTop + y;
    image.style.width = `${fitted() * scale}px`;
    stage.scrollLeft = left * scale / before - x;
    stage.scrollTop = top * scale / before - y;
  };
  const actions = { in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit: () => zoom(0), close: () => dialog.close() };
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) actions[button.dataset.zoom]();
  });
  dialog.addEventListener("keydown", (event) => {
    const action = { "+": "in", "=": "in", "-": "out", "0": "fit" }[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[action]();
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const frame = stage.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - frame.left, event.clientY - frame.top);
  }, { passive: false });
  // A finger scrolls by itself.
  stage.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    event.preventDefault();
    stage.focus();
    stage.setPointerCapture(event.pointerId);
    stage.classList.add("held");
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.classList.contains("held")) stage.scrollBy(-event.movementX, -event.movementY);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, () => stage.classList.remove("held"));
  }
  addEventListener("resize", () => { if (image) zoom(1); });
  dialog.addEventListener("close", () => {
    stage.replaceChildren();
    image = null;
    opener?.focus();
  });
  const open = (picture, title, button) => {
    opener = button;
    scale = 1;
    image = new Image();
    image.alt = picture.alt;
    image.draggable = false;
    image.src = picture.src;
    stage.replaceChildren(image);
    document.getElementById("lightbox-title").textContent = title;
    dialog.showModal();
    image.decode().then(() => zoom(0), () => {});
  };
  for (const picture of document.querySelectorAll(".picture img")) {
    const title = picture.closest("figure").querySelector("figcaption strong").textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Enlarge";
    picture.replaceWith(button);
    const hint = document.createElement("span");
    hint.className = "unseen";
    hint.textContent = "Enlarge";
    // The description of the picture stays part of the button's name.
    button.append(picture, hint);
    button.addEventListener("click", () => open(picture, title, button));
  }
};

document.addEventListener("DOMContentLoaded", () => {
  startTheme();
  startContents();
  document.querySelectorAll("table.sortable").forEach(startTable);
  startLightbox();
});
})();
