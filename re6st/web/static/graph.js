// Draws the mesh on a canvas: nodes pushed apart by d3-force, moved and zoomed by hand, updated as tunnels come and go.
"use strict";
(() => {
  const box = document.getElementById("graph");
  const canvas = document.getElementById("canvas");
  const card = document.getElementById("card");
  const find = document.getElementById("find");
  const context = canvas.getContext("2d");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let nodes = [];
  let links = [];
  let neighbours = new Map();
  let colours = {};
  let view = { x: 0, y: 0, k: 1 };
  let hovered = null;
  let selected = null;
  let path = new Set();
  let found = null;
  let fitting = true;
  let scheduled = false;

  const simulation = d3.forceSimulation([]).stop();
  simulation
    .force("link", d3.forceLink([]))
    .force("charge", d3.forceManyBody().theta(1.1))
    .force("x", d3.forceX())
    .force("y", d3.forceY())
    .force("collide", d3.forceCollide((node) => node.r + 3))
    .velocityDecay(0.45)
    .on("tick", () => {
      if (fitting) fit();
      draw();
    });

  // --- data ---

  async function load() {
    let record;
    try {
      const answer = await fetch(box.dataset.source, { redirect: "error" });
      if (!answer.ok) return;
      record = await answer.json();
    } catch {
      return;  // the next change tries again
    }
    const old = new Map(nodes.map((node) => [node.cn, node]));
    const first = !nodes.length;
    const size = record.nodes.length < 60 ? 8 : record.nodes.length < 250 ? 6 : 5;
    const fresh = record.nodes.map((node) => Object.assign(old.get(node.cn) || {}, node));
    fresh.forEach((node) => {
      node.degree = 0;
      node.r = size * (node.state === "registry" ? 1.5 : 1);
    });
    const edges = record.tunnels.map((each) => ({ ...each, source: fresh[each.from], target: fresh[each.to] }));
    neighbours = new Map(fresh.map((node) => [node, []]));
    for (const edge of edges) {
      if (!edge.alive) continue;
      edge.source.degree += 1;
      edge.target.degree += 1;
      neighbours.get(edge.source).push(edge.target);
      neighbours.get(edge.target).push(edge.source);
    }
    for (const node of fresh) {  // a new node begins beside a peer of it
      const peer = (neighbours.get(node) || []).find((each) => each.x !== undefined);
      if (node.x === undefined && peer) {
        node.x = peer.x + 20 * Math.random() - 10;
        node.y = peer.y + 20 * Math.random() - 10;
      }
    }
    const changed = fresh.length !== nodes.length || shape(edges) !== shape(links);
    nodes = fresh;
    links = edges;
    selected = selected && nodes.find((node) => node.cn === selected.cn) || null;
    hovered = null;
    showPath();
    search();
    simulation.nodes(nodes);
    // A random mesh has no shape of its own: in a large one tunnels pull little, so that nodes keep a distance, except
    // where a node hangs on few. The drawing is as wide as the window.
    const large = nodes.length > 60;
    const wide = Math.min(Math.max(box.clientWidth / Math.max(box.clientHeight, 1), 0.6), 1.7);
    simulation.force("link").links(links).distance(large ? 30 : 110).strength((link) => {
      const least = Math.min(link.source.degree, link.target.degree);
      return !link.alive ? 0 : least < 4 ? 0.6 : large ? 0.5 / least / Math.sqrt(nodes.length) : 0.5 / Math.sqrt(least + 1);
    });
    simulation.force("charge").strength((node) => (node.state === "offline" ? -25 : large ? -60 : -340));
    simulation.force("x").strength(0.06 / wide);
    simulation.force("y").strength(0.06 * wide);
    if (first) {
      simulation.alpha(1).stop();
      const began = performance.now();  // most of the way at once, before anything is shown
      for (let step = 0; step < 200 && performance.now() - began < 700; step++) simulation.tick();
      fit();
      if (still.matches) draw();
      else simulation.alphaDecay(0.04).alpha(Math.min(simulation.alpha(), 0.3)).restart();
    } else if (changed && !still.matches) {
      simulation.alpha(Math.max(simulation.alpha(), 0.15)).restart();
    }
    showCard();
    draw();
    box.dataset.drawn = record.revision;
  }

  function shape(edges) {
    return edges.map((edge) => `${edge.source.cn}>${edge.target.cn}${edge.alive}`).join();
  }

  // --- what is highlighted ---

  // The shortest way from the registry's node to the selected one.
  function showPath() {
    path = new Set();
    const root = nodes.find((node) => node.state === "registry");
    if (!selected || !root) return;
    const before = new Map([[root, null]]);
    const queue = [root];
    for (let node = queue.shift(); node && node !== selected; node = queue.shift()) {
      for (const peer of neighbours.get(node)) {
        if (!before.has(peer)) {
          before.set(peer, node);
          queue.push(peer);
        }
      }
    }
    for (let node = selected; node && before.has(node); node = before.get(node)) path.add(node);
  }

  function search() {
    const text = find.value.trim().toLowerCase();
    found = !text ? null : new Set(nodes.filter((node) =>
      [node.cn, node.name, node.email, node.version].some((value) => value && value.toLowerCase().includes(text))));
  }

  function label(node) {
    return node.name ? `${node.cn} ${node.name}` : node.cn;
  }

  function select(node) {
    selected = node;
    showPath();
    showCard();
    draw();
  }

  function showCard() {
    card.hidden = !selected;
    if (!selected) return;
    const title = document.createElement("a");
    title.href = `/nodes/${selected.cn}`;
    title.className = "mono";
    title.textContent = selected.cn;
    const steps = path.size ? `, ${path.size - 1} step${path.size === 2 ? "" : "s"} from the registry` : "";
    const lines = [selected.name, selected.email, selected.version, `${selected.state}${steps}`,
      `${selected.tunnels} tunnel${selected.tunnels === 1 ? "" : "s"}${selected.cut ? "; others hang on it alone" : ""}`];
    card.replaceChildren(title, ...lines.filter(Boolean).map((line) => {
      const paragraph = document.createElement("p");
      paragraph.className = "wrap";
      paragraph.textContent = line;
      return paragraph;
    }));
  }

  // --- drawing ---

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    const names = { text: "--text", dim: "--dim", edge: "--edge", warn: "--warn", gone: "--gone", panel: "--panel", link: "--link",
      registry: "--registry", direct: "--good", indirect: "--indirect", offline: "--bad", unknown: "--gone" };
    colours = Object.fromEntries(Object.entries(names).map(([key, name]) => [key, style.getPropertyValue(name).trim()]));
  }

  function resize() {
    const ratio = devicePixelRatio || 1;
    canvas.width = box.clientWidth * ratio;
    canvas.height = box.clientHeight * ratio;
    if (fitting) fit();
    draw();
  }

  function fit() {
    const placed = nodes.filter((node) => node.x !== undefined);
    if (!placed.length) return;
    const xs = placed.map((node) => node.x);
    const ys = placed.map((node) => node.y);
    const left = Math.min(...xs), right = Math.max(...xs), top = Math.min(...ys), bottom = Math.max(...ys);
    const width = box.clientWidth, height = box.clientHeight, margin = 46;
    const k = Math.min((width - 2 * margin) / Math.max(right - left, 1), (height - 2 * margin) / Math.max(bottom - top, 1), 2);
    view = { k: Math.max(k, 0.02), x: width / 2 - k * (left + right) / 2, y: height / 2 - k * (top + bottom) / 2 };
  }

  function draw() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      paint();
    });
  }

  function paint() {
    const ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, box.clientWidth, box.clientHeight);
    context.translate(view.x, view.y);
    context.scale(view.k, view.k);
    const centre = hovered || selected;
    const near = centre ? new Set([centre, ...neighbours.get(centre) || []]) : null;
    const thin = 1 / view.k;
    const crowd = links.length > 400 ? 0.16 : links.length > 120 ? 0.4 : 0.8;

    lines(links.filter((edge) => edge.alive && !edge.cut), colours.edge, near ? crowd / 2.5 : crowd, (links.length > 120 ? 1 : 1.4) * thin, []);
    lines(links.filter((edge) => edge.cut), colours.warn, 0.9, 1.6 * thin, [6 * thin, 4 * thin]);
    lines(links.filter((edge) => !edge.alive), colours.gone, 0.35, thin, [2 * thin, 5 * thin]);
    if (centre) {
      lines(links.filter((edge) => edge.alive && (edge.source === centre || edge.target === centre)), colours.edge, 1, 1.5 * thin, []);
    }
    if (path.size > 1) {
      const way = [...path];
      const pairs = way.slice(1).map((node, index) => ({ source: way[index], target: node }));
      lines(pairs, colours.link, 1, 3.5 * thin, []);
    }

    for (const node of nodes) {
      const faded = (near && !near.has(node) && !path.has(node)) || (found && !found.has(node));
      context.globalAlpha = faded ? 0.25 : 1;
      context.beginPath();
      context.arc(node.x, node.y, radius(node), 0, 2 * Math.PI);
      context.fillStyle = node.state === "offline" ? colours.panel : colours[node.state];
      context.fill();
      if (node.state === "offline" || node.cut || node === selected) {
        context.strokeStyle = node === selected ? colours.link : node.cut ? colours.warn : colours.offline;
        context.lineWidth = 2 * thin;
        context.stroke();
      }
    }
    labels(near);
  }

  // Nodes stay large enough to be seen, however far away one looks.
  function radius(node) {
    return Math.max(node.r, (node.state === "registry" ? 6 : 3.6) / view.k);
  }

  function lines(edges, colour, alpha, width, dash) {
    context.beginPath();
    for (const edge of edges) {
      context.moveTo(edge.source.x, edge.source.y);
      context.lineTo(edge.target.x, edge.target.y);
    }
    context.globalAlpha = alpha;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
  }

  // Names where there is room for them: of few nodes all, else of what is looked at, and of more the nearer one looks.
  function labels(near) {
    const all = nodes.length * 5200 < box.clientWidth * box.clientHeight || view.k > 1.5;
    const wanted = nodes.filter((node) => node === selected || node.state === "registry" || path.has(node) ||
      (found && found.size <= 40 && found.has(node)) || (near && near.size <= 40 && near.has(node)) || (all && !near && !found));
    context.font = `${12 / view.k}px system-ui, "DejaVu Sans", sans-serif`;
    context.textBaseline = "middle";
    context.lineJoin = "round";
    for (const node of wanted) {
      const x = node.x + radius(node) + 4 / view.k;
      context.globalAlpha = 0.85;
      context.strokeStyle = colours.panel;
      context.lineWidth = 4 / view.k;
      context.strokeText(label(node), x, node.y);
      context.globalAlpha = 1;
      context.fillStyle = node.state === "offline" ? colours.dim : colours.text;
      context.fillText(label(node), x, node.y);
    }
  }

  // --- by hand ---

  const pointers = new Map();
  let grabbed = null;
  let moved = 0;

  function place(event) {
    const frame = canvas.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top };
  }

  function at(point) {
    const x = (point.x - view.x) / view.k, y = (point.y - view.y) / view.k;
    const reach = 8 / view.k;
    let best = null, least = Infinity;
    for (const node of nodes) {
      const distance = Math.hypot(node.x - x, node.y - y) - radius(node);
      if (distance < reach && distance < least) [best, least] = [node, distance];
    }
    return best;
  }

  function zoom(factor, point) {
    const k = Math.min(Math.max(view.k * factor, 0.02), 12);
    view = { k, x: point.x - (point.x - view.x) * k / view.k, y: point.y - (point.y - view.y) * k / view.k };
    fitting = false;
    draw();
  }

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), place(event));
  }, { passive: false });

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const point = place(event);
    pointers.set(event.pointerId, point);
    moved = 0;
    grabbed = pointers.size === 1 ? at(point) : null;
  });

  canvas.addEventListener("pointermove", (event) => {
    const point = place(event), before = pointers.get(event.pointerId);
    if (!before) {
      const node = at(point);
      canvas.classList.toggle("over", Boolean(node));
      if (node !== hovered) {
        hovered = node;
        draw();
      }
      return;
    }
    moved += Math.hypot(point.x - before.x, point.y - before.y);
    if (pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const factor = Math.hypot(point.x - other.x, point.y - other.y) / Math.max(Math.hypot(before.x - other.x, before.y - other.y), 1);
      zoom(factor, other);
    } else if (grabbed && moved > 4) {
      grabbed.fx = (point.x - view.x) / view.k;
      grabbed.fy = (point.y - view.y) / view.k;
      fitting = false;
      simulation.alphaTarget(0.15).restart();
    } else if (!grabbed) {
      view.x += point.x - before.x;
      view.y += point.y - before.y;
      fitting = false;
      draw();
    }
    pointers.set(event.pointerId, point);
  });

  function release(event) {
    if (!pointers.delete(event.pointerId)) return;
    if (moved <= 4 && event.type === "pointerup") select(at(place(event)));
    if (grabbed) {
      grabbed.fx = grabbed.fy = null;
      simulation.alphaTarget(0);
    }
    grabbed = null;
  }
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => {
    if (hovered) {
      hovered = null;
      draw();
    }
  });
  canvas.addEventListener("keydown", (event) => {
    const middle = { x: box.clientWidth / 2, y: box.clientHeight / 2 };
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.key === "+" || event.key === "=") zoom(1.3, middle);
    else if (event.key === "-") zoom(1 / 1.3, middle);
    else if (event.key === "Escape") select(null);
    else if (steps[event.key]) {
      view.x += steps[event.key][0];
      view.y += steps[event.key][1];
      fitting = false;
      draw();
    } else return;
    event.preventDefault();
  });

  find.addEventListener("input", () => {
    search();
    draw();
  });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && found && found.size) select([...found][0]);
  });
  document.getElementById("fit").addEventListener("click", () => {
    fitting = true;
    fit();
    draw();
  });

  document.getElementById("drawing").remove();
  document.getElementById("tools").hidden = false;
  canvas.hidden = false;
  readColours();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    draw();
  });
  new ResizeObserver(resize).observe(box);
  document.addEventListener("mesh-changed", load);
  load();
})();
