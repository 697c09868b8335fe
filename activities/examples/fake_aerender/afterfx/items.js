// Items of a project and layers of its compositions. Times are seconds.

class Item {
    constructor(project, name) {
        this.project = project;
        this.name = name;
        project.nextId = (project.nextId || 0) + 1;
        this.id = project.nextId;
        project.kept.push(this);
    }

    // Compositions that show it.
    get usedIn() {
        const found = [];
        for (const item of this.project.kept) {
            for (const layer of item.stack || []) { if (layer.source === this) { found.push(item); break; } }
        }
        return found;
    }
}

class SolidSource { constructor(color) { this.color = color; } }
class FileSource { constructor(file) { this.file = file; } }

class FootageItem extends Item {
    constructor(project, name, size, source) {
        super(project, name);
        this.width = size[0];
        this.height = size[1];
        this.duration = 0;
        this.hasAudio = false;
        this.footageMissing = false;
        this.mainSource = source;
    }
}

class CompItem extends Item {
    constructor(project, name, width, height, pixelAspect, duration, frameRate) {
        super(project, name);
        this.width = width;
        this.height = height;
        this.pixelAspect = pixelAspect;
        this.duration = duration;
        this.frameRate = frameRate;
        this.displayStartTime = 0;
        this.stack = [];
        this.markerProperty = new Property("Marker", "ADBE Marker", PropertyValueType.MARKER, null);
        const comp = this;
        this.layers = { add(item) { const layer = new AVLayer(comp, item.name, item); comp.stack.unshift(layer); return layer; } };
    }

    get numLayers() { return this.stack.length; }

    layer(n) {
        if (!this.stack[n - 1]) { throw new Error("After Effects error: no layer " + n); }
        return this.stack[n - 1];
    }
}

let nextLayerId = 1000;

class AVLayer extends PropertyGroup {
    constructor(comp, name, source) {
        super(name, "ADBE AV Layer", []);
        this.containingComp = comp;
        this.source = source || null;
        this.id = nextLayerId += 1;
        this.comment = "";
        this.enabled = true;
        this.hasAudio = false;
        this.audioEnabled = true;
        this.remapped = false;
        this.started = 0;
        this.from = 0;
        this.to = comp.duration;
        const size = source ? [source.width / 2, source.height / 2] : [0, 0];
        this.children.push(new PropertyGroup("Transform", "ADBE Transform Group", [
            new Property("Position", "ADBE Position", PropertyValueType.TwoD, [comp.width / 2, comp.height / 2]),
            new Property("Anchor Point", "ADBE Anchor Point", PropertyValueType.TwoD, size),
            new Property("Scale", "ADBE Scale", PropertyValueType.TwoD, [100, 100]),
            new Property("Opacity", "ADBE Opacity", PropertyValueType.OneD, 100),
        ]));
        this.children.push(new PropertyGroup("Effects", "ADBE Effect Parade", []));
    }

    get startTime() { return this.started; }
    set startTime(time) {
        const by = time - this.started;
        [this.started, this.from, this.to] = [time, this.from + by, this.to + by];
    }

    get inPoint() { return this.from; }
    set inPoint(time) { this.from = time; }

    // A source that ends cannot be shown longer, unless its time is remapped.
    get outPoint() { return this.to; }
    set outPoint(time) {
        const length = this.source ? this.source.duration : 0;
        this.to = length > 0 && !this.remapped ? Math.min(time, this.started + length) : time;
    }

    get timeRemapEnabled() { return this.remapped; }
    set timeRemapEnabled(is) {
        if (!this.source || !(this.source.duration > 0)) { throw new Error("After Effects error: time cannot be remapped"); }
        this.remapped = is;
        const property = new Property("Time Remap", "ADBE Time Remapping", PropertyValueType.OneD, 0);
        property.setValueAtTime(this.started, 0);
        property.setValueAtTime(this.started + this.source.duration, this.source.duration);
        this.children.push(property);
    }

    sourceRectAtTime() {
        const words = this.property("ADBE Text Properties");
        if (words) { return words.property("ADBE Text Document").value.drawn(); }
        return { top: 0, left: 0, width: this.source ? this.source.width : 0, height: this.source ? this.source.height : 0 };
    }

    replaceSource(item) {
        if (!this.source) { throw new Error("After Effects error: the layer has no source"); }
        this.source = item;
    }

    duplicate() {
        const twin = new AVLayer(this.containingComp, this.name, this.source);
        [twin.started, twin.from, twin.to, twin.comment, twin.enabled] = [this.started, this.from, this.to, this.comment, this.enabled];
        this.containingComp.stack.splice(this.containingComp.stack.indexOf_(this), 0, twin);
        return twin;
    }

    remove() { this.containingComp.stack.splice(this.containingComp.stack.indexOf_(this), 1); }
}

// Our own, since the script must not find the library's.
Object.defineProperty(Array.prototype, "indexOf_", {
    value(wanted) { for (let i = 0; i < this.length; i += 1) { if (this[i] === wanted) { return i; } } return -1; },
});
