'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const byId = (id) => document.getElementById(id);
  const svgNs = 'http://www.w3.org/2000/svg';
  // Zoom below which a node's text cannot be read.
  const READABLE = 0.4;

  for (const stage of data.stages) {
    for (const node of stage.nodes) node.readers = [];
    stage.nodes.forEach((node, at) => {
      for (const edge of node.in) stage.nodes[edge.from].readers.push(at);
      node.text = [`%${node.number}`, node.op, node.attributes, node.type, node.name, node.location, node.kernel, node.steps]
        .filter((part) => part).join('\n').toLowerCase();
    });
  }

  function html(tag, text, parent) {
    const element = document.createElement(tag);
    if (text !== null && text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  }

  function svg(tag, attributes, parent) {
    const element = document.createElementNS(svgNs, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (parent) parent.append(element);
    return element;
  }

  function outline(nodes) {
    return nodes.map((node) => `M${node.x - node.w / 2} ${node.y}h${node.w}v${data.height}h${-node.w}z`).join('');
  }

  // ---- Panes: one stage each, with its own place and zoom.
  //
  // From afar a stage is a few large paths. Near, only the nodes and edges in sight are elements of the page.

  class Pane {
    constructor(stage) {
      this.root = html('section', null, byId('panes'));
      this.root.className = 'pane';
      const bar = html('div', null, this.root);
      bar.className = 'bar';
      this.select = html('select', null, bar);
      data.stages.forEach((s, at) => { html('option', s.name, this.select).value = at; });
      this.select.onchange = () => this.show(Number(this.select.value));
      const fit = html('button', 'Fit', bar);
      fit.onclick = () => this.fit();
      this.summary = html('span', null, bar);
      this.svg = svg('svg', {}, this.root);
      this.root.onpointerdown = () => { current = this; };
      this.listen();
      this.show(stage);
    }

    show(at) {
      this.stage = data.stages[at];
      this.select.value = at;
      this.summary.textContent = [this.stage.summary, ...this.stage.kept].join('  ·  ');
      this.summary.title = this.summary.textContent;
      this.svg.replaceChildren();
      this.world = svg('g', {}, this.svg);
      this.edges = svg('path', { class: 'edges' }, this.world);
      this.far = svg('g', {}, this.world);
      for (const family of new Set(this.stage.nodes.map((node) => node.family))) {
        const same = this.stage.nodes.filter((node) => node.family === family);
        svg('path', { d: outline(same), class: 'block', fill: `var(--${family})` }, this.far);
      }
      this.boxes = svg('g', {}, this.world);
      this.near = svg('path', { class: 'near' }, this.world);
      this.marks = svg('path', { class: 'marks' }, this.world);
      this.focus = svg('path', { class: 'focus' }, this.world);
      this.allEdges = this.stage.nodes.flatMap((node) => node.in.map((edge) => edge.d)).join('');
      this.drawn = null;
      this.fit();
      search(false);
    }

    box(node) {
      const group = svg('g', { class: 'node' }, this.boxes);
      const [x, y] = [node.x, node.y];
      svg('rect', { x: x - node.w / 2, y, width: node.w, height: data.height, rx: 5, fill: `var(--${node.family})` }, group);
      svg('text', { x, y: y + 15 }, group).textContent = node.lines[0];
      svg('text', { x, y: y + 29 }, group).textContent = node.lines[1];
    }

    place() {
      this.world.setAttribute('transform', `translate(${this.x} ${this.y}) scale(${this.zoom})`);
      const far = this.zoom < READABLE;
      if (far && this.drawn !== 'far') {
        this.drawn = 'far';
        this.boxes.replaceChildren();
        this.edges.setAttribute('d', this.allEdges);
      }
      this.far.style.display = far ? '' : 'none';
      if (!far) this.draw();
    }

    // Makes the elements in sight, and some around them, so that most moves need no new ones.
    draw() {
      const [width, height] = [this.svg.clientWidth / this.zoom, this.svg.clientHeight / this.zoom];
      const [left, top] = [-this.x / this.zoom, -this.y / this.zoom];
      const old = this.drawn;
      const covered = old && old !== 'far' && old.left <= left && old.right >= left + width
        && old.top <= top && old.bottom >= top + height;
      if (covered) return;
      const sight = { left: left - width / 2, right: left + 1.5 * width, top: top - height / 2, bottom: top + 1.5 * height };
      this.drawn = sight;
      this.boxes.replaceChildren();
      const edges = [];
      for (const node of this.stage.nodes) {
        const inside = node.y + data.height >= sight.top && node.y <= sight.bottom;
        if (inside && node.x + node.w / 2 >= sight.left && node.x - node.w / 2 <= sight.right) this.box(node);
        if (node.y < sight.top) continue;
        for (const edge of node.in) {
          if (this.stage.nodes[edge.from].y <= sight.bottom) edges.push(edge.d);
        }
      }
      this.edges.setAttribute('d', edges.join(''));
    }

    fit() {
      const [width, height] = [this.svg.clientWidth || 800, this.svg.clientHeight || 600];
      const zoom = Math.min(width / this.stage.width, height / this.stage.height, 1);
      // A deep graph as a whole would be a thread: show its start at a size that can be read.
      this.zoom = Math.max(zoom, Math.min(0.6, width / this.stage.width));
      this.x = (width - this.stage.width * this.zoom) / 2;
      this.y = zoom === this.zoom ? (height - this.stage.height * zoom) / 2 : 0;
      this.place();
    }

    zoomAt(factor, x, y) {
      const zoom = Math.min(Math.max(this.zoom * factor, 0.005), 8);
      this.x = x - (x - this.x) * zoom / this.zoom;
      this.y = y - (y - this.y) * zoom / this.zoom;
      this.zoom = zoom;
      this.place();
    }

    // The node at a place of the pane; -1 for none.
    at(clientX, clientY) {
      const frame = this.svg.getBoundingClientRect();
      const [x, y] = [(clientX - frame.left - this.x) / this.zoom, (clientY - frame.top - this.y) / this.zoom];
      return this.stage.nodes.findIndex((node) => Math.abs(x - node.x) <= node.w / 2 && y >= node.y && y <= node.y + data.height);
    }

    listen() {
      let last = null;
      let moved = 0;
      this.svg.addEventListener('wheel', (event) => {
        event.preventDefault();
        const frame = this.svg.getBoundingClientRect();
        this.zoomAt(Math.exp(-event.deltaY / 400), event.clientX - frame.left, event.clientY - frame.top);
      }, { passive: false });
      this.svg.onpointerdown = (event) => { last = [event.clientX, event.clientY]; moved = 0; };
      this.svg.onpointermove = (event) => {
        if (!last || !event.buttons) return;
        const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
        moved += Math.abs(dx) + Math.abs(dy);
        if (moved > 4 && !this.svg.hasPointerCapture(event.pointerId)) {
          this.svg.setPointerCapture(event.pointerId);
          this.svg.classList.add('moving');
        }
        last = [event.clientX, event.clientY];
        this.x += dx;
        this.y += dy;
        this.place();
      };
      this.svg.onpointerup = () => { last = null; this.svg.classList.remove('moving'); };
      this.svg.onclick = (event) => {
        const at = this.at(event.clientX, event.clientY);
        if (at >= 0 && moved <= 4) this.choose(at, false);
      };
    }

    choose(at, center) {
      const node = this.stage.nodes[at];
      const near = node.in.map((edge) => edge.d);
      for (const reader of node.readers) {
        near.push(...this.stage.nodes[reader].in.filter((edge) => edge.from === at).map((edge) => edge.d));
      }
      this.near.setAttribute('d', near.join(''));
      this.focus.setAttribute('d', outline([node]));
      details(this, node);
      if (!center) return;
      this.zoom = Math.max(this.zoom, 0.8);
      this.x = this.svg.clientWidth / 2 - node.x * this.zoom;
      this.y = this.svg.clientHeight / 2 - node.y * this.zoom;
      this.place();
    }
  }

  // ---- Details of the chosen node.

  function details(pane, node) {
    const panel = byId('details');
    panel.replaceChildren();
    panel.hidden = false;
    const close = html('button', 'Close', panel);
    close.className = 'close';
    close.onclick = () => { panel.hidden = true; };
    html('h2', `%${node.number} ${node.op}`, panel);
    const list = html('dl', null, panel);
    const fact = (name, value) => {
      if (value === null || value === '') return;
      html('dt', name, list);
      html('dd', value, list);
    };
    fact('Attributes', node.attributes);
    fact('Name', node.name);
    fact('Type', node.type);
    fact('Size', node.bytes);
    fact('Recorded at', node.location);
    fact('Kernel', node.kernel);
    const link = (at, view) => {
      const other = pane.stage.nodes[at];
      const entry = html('dd', null, list);
      html('a', `%${other.number} ${other.op}`, entry).onclick = () => pane.choose(at, true);
      entry.append(` ${other.type}${other.name === null ? '' : ` "${other.name}"`}`);
      if (view !== null) html('div', `seen as ${view}`, entry);
    };
    if (node.in.length) html('dt', 'Operands', list);
    for (const edge of node.in) link(edge.from, edge.view);
    if (node.readers.length) html('dt', 'Read by', list);
    for (const reader of node.readers) link(reader, null);
    if (node.steps) {
      html('dt', 'Steps', list);
      html('pre', node.steps, html('dd', null, list));
    }
  }

  // ---- Search: marks matches in all panes, and steps through those of the current one.

  let match = -1;

  function search(jump) {
    const words = byId('search').value.toLowerCase().split(/\s+/).filter((word) => word);
    for (const pane of panes) {
      pane.matches = [];
      pane.stage.nodes.forEach((node, at) => {
        const found = words.length > 0 && words.every((word) => node.text.includes(word));
        if (found) pane.matches.push(at);
      });
      pane.marks.setAttribute('d', outline(pane.matches.map((at) => pane.stage.nodes[at])));
    }
    match = -1;
    const n = current ? current.matches.length : 0;
    byId('matches').textContent = words.length ? `${n} found` : '';
    if (jump && n) step(1);
  }

  function step(by) {
    const n = current.matches.length;
    if (!n) return;
    match = match < 0 ? (by > 0 ? 0 : n - 1) : (match + by + n) % n;
    byId('matches').textContent = `${match + 1} of ${n}`;
    current.choose(current.matches[match], true);
  }

  // ---- Start.

  const panes = [];
  let current = null;

  function sides(two) {
    while (panes.length > (two ? 2 : 1)) panes.pop().root.remove();
    if (panes.length < 1) panes.push(new Pane(two ? 0 : data.stages.length - 1));
    if (two && panes.length < 2) panes.push(new Pane(data.stages.length - 1));
    current = panes[panes.length - 1];
    for (const pane of panes) pane.fit();
    search(false);
  }

  const dark = window.matchMedia('(prefers-color-scheme: dark)').matches;
  document.documentElement.classList.toggle('dark', dark);
  byId('theme').onclick = () => document.documentElement.classList.toggle('dark');
  byId('sides').onclick = () => sides(panes.length === 1);
  byId('search').oninput = () => search(false);
  byId('search').onkeydown = (event) => {
    if (event.key === 'Enter') step(event.shiftKey ? -1 : 1);
  };
  byId('next').onclick = () => step(1);
  byId('previous').onclick = () => step(-1);
  sides(data.stages.length > 1);
})();
