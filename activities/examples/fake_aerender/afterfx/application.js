// The application: files, the render queue, the project and what a scenario makes of them. `host` is ours (afterfx.rs).

const json = JSON;
const $ = { fileName: host.script, os: host.settings.os || "Macintosh OS 14.5.0/64" };
const CloseOptions = { DO_NOT_SAVE_CHANGES: 1212 };
const GetSettingsFormat = { STRING_SETTABLE: 3413 };

class Folder { constructor(path) { this.fsName = path; } }

class File {
    constructor(path) { this.fsName = path; this.encoding = ""; this.text = null; this.at = path; }
    get parent() { return new Folder(this.fsName.substring(0, this.fsName.lastIndexOf("/"))); }
    open(mode) {
        if (mode === "r") { this.text = host.read(this.at); return this.text !== null && this.encoding === "UTF-8"; }
        this.text = [];
        return host.settings.may_write !== false;
    }
    read() { return this.text; }
    write(text) { this.text.push(String(text)); return true; }
    close() { return typeof this.text === "string" || host.write(this.at, this.text.join("")); }
    remove() { return host.remove(this.at); }
    rename(name) { return host.rename(this.at, this.parent.fsName + "/" + name); }
}

class ImportOptions { constructor(file) { this.file = file; } }

class OutputModule {
    constructor(settings) { this.settings = settings; this.file = null; }
    getSettings() { return copyOf(this.settings); }
    setSettings(settings) { this.settings = copyOf(settings); }
    setSetting(name, value) {
        if (host.settings.no_frame_numbers) { throw new Error("After Effects error: no setting " + name); }
        this.settings[name] = String(value);
    }
}

class RenderQueueItem {
    constructor(queue, comp) {
        this.queue = queue;
        this.comp = comp;
        this.render = true;
        this.timeSpanStart = 0;
        this.timeSpanDuration = comp.duration;
        this.settings = { Quality: "Current" };
        this.modules = [new OutputModule({ Format: "QuickTime" })];
        queue.kept.push(this);
    }
    outputModule(n) { return this.modules[n - 1]; }
    getSettings() { return copyOf(this.settings); }
    setSettings(settings) { this.settings = copyOf(settings); }
    duplicate() {
        const twin = new RenderQueueItem(this.queue, this.comp);
        [twin.timeSpanStart, twin.timeSpanDuration, twin.settings] = [this.timeSpanStart, this.timeSpanDuration, copyOf(this.settings)];
        twin.modules[0].settings = copyOf(this.modules[0].settings);
        return twin;
    }
    remove() { this.queue.kept.splice(this.queue.kept.indexOf_(this), 1); }
}

class RenderQueue {
    constructor() {
        const queue = this;
        this.kept = [];
        this.items = { add(comp) { return new RenderQueueItem(queue, comp); } };
    }
    get numItems() { return this.kept.length; }
    item(n) { return this.kept[n - 1]; }
}

class Project {
    constructor() {
        const project = this;
        this.kept = [];
        this.renderQueue = new RenderQueue();
        this.displayStartFrame = 0;
        this.usedFonts = [];
        this.items = { addComp(name, w, h, aspect, seconds, rate) { return new CompItem(project, name, w, h, aspect, seconds, rate); } };
    }
    get numItems() { return this.kept.length; }
    item(n) { return this.kept[n - 1]; }
    importFile(options) {
        const path = options.file.fsName, hash = host.hash(path);
        if (hash === null) { throw new Error("After Effects error: the file " + path + " does not exist."); }
        if (host.settings.bad_media) { throw new Error("After Effects error: " + host.settings.bad_media); }
        return new FootageItem(this, path.substr(path.lastIndexOf("/") + 1), [40, 30], new FileSource(options.file));
    }
    save(file) { if (!host.write(file.fsName, json.stringify(saved(this)))) { throw new Error("After Effects error: cannot save"); } }
    close() { return true; }
}

const app = {
    version: "0.0.0x0",
    project: new Project(),
    fonts: host.settings.no_font_check ? undefined : { missingOrSubstitutedFonts: [] },
    effects: [],
    beginSuppressDialogs() {},
    endSuppressDialogs() {},
    quit() { if (host.settings.hang === "quit") { host.hang(); } },
    open(file) {
        if (host.settings.hang === "open") { host.hang(); }
        if (host.settings.crash) { host.crash(); }
        if (host.settings.open_error) { throw new Error("After Effects error: " + host.settings.open_error); }
        const text = host.read(file.fsName);
        if (text === null) { throw new Error("After Effects error: file not there"); }
        app.project = loaded(json.parse(text), file.parent.fsName);
    },
};

function copyOf(record) { const copy = {}; for (const key in record) { copy[key] = record[key]; } return copy; }

// ---- the stand-in's project file ----

function loaded(file, folder) {
    const project = new Project(), comps = {}, footage = {}, found = host.settings;
    project.file = file;
    for (const f of file.footage || []) {
        const isAbsolute = f.path.charAt(0) === "/" || f.path.charAt(1) === ":";
        const path = isAbsolute ? f.path : folder + "/" + f.path;
        footage[f.name] = new FootageItem(project, f.name, f.size || [64, 36], new FileSource(new File(path)));
        footage[f.name].footageMissing = host.hash(path) === null;
    }
    const all = [];
    for (const c of file.compositions) {
        const fps = c.fps || 30;
        const comp = new CompItem(project, c.name, c.size[0], c.size[1], 1, c.frames / fps, fps);
        comp.id = c.id || comp.id;
        comp.displayStartTime = (c.display_start || 0) / fps;
        comps[c.name] = comps[c.name] || comp;
        all.push([comp, c]);
    }
    for (const [comp, c] of all) {
        for (const l of c.layers || []) { comp.stack.push(layer(project, comp, l, comps, footage)); }
        for (const m of c.markers || []) { comp.markerProperty.keys.push({ time: m.at / comp.frameRate, value: { comment: m.comment, duration: m.frames / comp.frameRate } }); }
    }
    for (const q of file.queue || []) {
        const item = new RenderQueueItem(project.renderQueue, comps[q.composition]);
        const fps = item.comp.frameRate;
        if (q.span) { [item.timeSpanStart, item.timeSpanDuration] = [q.span[0] / fps, (q.span[1] - q.span[0] + 1) / fps]; }
        item.settings = { Quality: "Best" };
        item.modules[0].settings = { Format: host.settings.format || "PNG Sequence" };
    }
    for (const name of file.effects || ["ADBE Fill", "ADBE Tint", "ADBE Color Control"]) { app.effects.push({ matchName: name }); }
    const missing = (found.missing_fonts || []).concat(file.missing_fonts || []);
    for (const name of missing) { if (app.fonts) { app.fonts.missingOrSubstitutedFonts.push({ postScriptName: name, familyName: name, styleName: "" }); } }
    return project;
}

function layer(project, comp, l, comps, footage) {
    let source = null;
    if (l.solid) { source = new FootageItem(project, l.name, [comp.width, comp.height], new SolidSource(l.solid)); }
    if (l.footage) { source = footage[l.footage]; }
    if (l.composition) { source = comps[l.composition]; }
    const made = new AVLayer(comp, l.name, source), fps = comp.frameRate;
    [made.id, made.comment, made.hasAudio] = [l.id || made.id, l.comment || "", !!l.audio];
    if (l.in !== undefined) { [made.started, made.from, made.to] = [l.start === undefined ? l.in / fps : l.start / fps, l.in / fps, l.out / fps]; }
    if (l.text) {
        const words = new TextDocument({ text: l.text.words, font: l.text.font || "Vazirmatn-Bold", fontSize: l.text.size || 40, applyFill: true,
            fillColor: [0, 0, 0], boxText: !!l.text.box, boxTextSize: l.text.box || [0, 0] });
        const property = new Property("Source Text", "ADBE Text Document", PropertyValueType.TEXT_DOCUMENT, words);
        for (const [frame, text] of l.text.keys || []) { const key = new TextDocument(words); key.text = text; property.setValueAtTime(frame / fps, key); }
        if (l.text.expression) { [property.expression, property.expressionEnabled] = [l.text.expression, true]; }
        made.children.push(new PropertyGroup("Text", "ADBE Text Properties", [property]));
        project.usedFonts.push({ font: { postScriptName: words.font } });
    }
    for (const e of l.effects || []) {
        made.property("ADBE Effect Parade").children.push(new PropertyGroup(e.name, e.match || "ADBE Fill", [
            new Property("Opacity", "ADBE Fill-0007", PropertyValueType.OneD, 1),
            new Property("Color", "ADBE Fill-0002", PropertyValueType.COLOR, [0, 0, 0, 1])]));
    }
    if (l.fills) {
        const fills = [];
        for (const f of l.fills) {
            const color = new Property("Color", "ADBE Vector " + f.kind + " Color", PropertyValueType.COLOR, [0, 0, 0, 1]);
            for (const [frame, value] of f.keys || []) { color.setValueAtTime(frame / fps, value); }
            fills.push(new PropertyGroup(f.name, "ADBE Vector Graphic - " + f.kind, f.kind === "G-Fill" ? [] : [color]));
        }
        made.children.push(new PropertyGroup("Contents", "ADBE Root Vectors Group", [new PropertyGroup("Group 1", "ADBE Vector Group", fills)]));
    }
    const failing = l.expression_error || (l.text && host.settings.expression_error);
    if (failing) {
        const opacity = made.property("ADBE Transform Group").property("Opacity");
        [opacity.expression, opacity.expressionEnabled, opacity.fails] = ["nowhere.value", true, failing];
    }
    return made;
}

// ---- what of it shows ----

function color(c) { return c ? [c[0], c[1], c[2]] : null; }

function seen(made) {
    const fps = made.containingComp.frameRate, frames = (s) => Math.round(s * fps), out = { name: made.name, shown: made.enabled };
    [out.start, out.in, out.out] = [frames(made.startTime), frames(made.inPoint), frames(made.outPoint)];
    if (made.hasAudio) { out.audible = made.audioEnabled; }
    const words = made.property("ADBE Text Properties");
    if (words) {
        const property = words.property("ADBE Text Document"), now = property.numKeys ? property.keyValue(1) : property.value;
        [out.words, out.color, out.size] = [now.text, color(now.fillColor), Math.round(now.fontSize * 100) / 100];
        if (property.numKeys) { out.keys = []; for (const key of property.keys) { out.keys.push(key.value.text); } }
    }
    if (made.source && made.source.mainSource instanceof SolidSource) { out.solid = color(made.source.mainSource.color); }
    if (made.source && made.source.mainSource instanceof FileSource) {
        out.file = host.hash(made.source.mainSource.file.fsName);
        out.scale = made.property("ADBE Transform Group").property("ADBE Scale").value;
    }
    if (made.source instanceof CompItem) { out.composition = made.source.name; out.scale = made.property("ADBE Transform Group").property("ADBE Scale").value; }
    const remap = made.property("ADBE Time Remapping");
    if (remap) { out.remap = []; for (const key of remap.keys) { out.remap.push([frames(key.time), frames(key.value)]); } }
    out.colors = [];
    (function look(group) {
        for (const child of group.children || []) {
            if (child.propertyValueType === PropertyValueType.COLOR) { out.colors.push(color(child.value)); }
            look(child);
        }
    }(made));
    return out;
}

function saved(project) {
    const compositions = [], queue = [];
    for (const item of project.kept) {
        if (!(item instanceof CompItem)) { continue; }
        const layers = [];
        for (const made of item.stack) { layers.push(seen(made)); }
        compositions.push({ name: item.name, id: item.id, frames: Math.round(item.duration * item.frameRate), size: [item.width, item.height],
            fps: item.frameRate, display_start: Math.round(item.displayStartTime * item.frameRate), layers: layers });
    }
    for (const item of project.renderQueue.kept) {
        const fps = item.comp.frameRate, first = Math.round(item.timeSpanStart * fps), settings = item.modules[0].settings;
        queue.push({ composition: item.comp.name, span: [first, first + Math.round(item.timeSpanDuration * fps) - 1],
            output: item.modules[0].file.fsName, settings: item.settings, module: settings });
    }
    return { compositions: compositions, queue: queue, templates: project.file.templates, prepared: true };
}
