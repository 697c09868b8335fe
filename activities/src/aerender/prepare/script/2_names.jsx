// ---- files ----

var folder = new File($.fileName).parent.fsName + "/";

function readFile(name) {
    var file = new File(folder + name), text;
    file.encoding = "UTF-8";
    if (!file.open("r")) { throw new Error("cannot read " + name); }
    text = file.read();
    file.close();
    return text;
}

// What has its name is whole: written beside it, then renamed.
function writeFile(name, text) {
    var file = new File(folder + name + ".new");
    file.encoding = "UTF-8";
    if (!file.open("w") || !file.write(text) || !file.close()) { throw new Error("cannot write " + name); }
    new File(folder + name).remove();
    if (!file.rename(name)) { throw new Error("cannot rename " + name); }
}

// ---- what is told ----

var job = null;
var manifest = { format: 1, job: null, ok: false, version: String(app.version), item: 0, texts: [], targets: [],
    fonts: { checked: false, used: [] }, failures: [], warnings: [] };

function note(list, code, object, message) {
    if (list.length < 50) { list.push({ code: code, object: String(object), message: String(message) }); }
}
function fail(code, object, message) { note(manifest.failures, code, object, message); }
function warn(code, object, message) { note(manifest.warnings, code, object, message); }
// What makes everything after it pointless.
function stop(code, object, message) { fail(code, object, message); throw { isStop: true }; }

function contains(list, wanted) {
    for (var i = 0; i < list.length; i += 1) { if (list[i] === wanted) { return true; } }
    return false;
}

// ---- names ----

function startsWith(text, prefix) { return text.substr(0, prefix.length) === prefix; }

// {role, key, token, tokens, shown}: what a name asks for.
function meaning(name) {
    var out = { role: "", key: "", token: "", tokens: [], shown: "" }, mark = name.lastIndexOf("?"), at;
    if (mark >= 0 && mark < name.length - 1 && name.substr(mark).indexOf(" ") < 0) {
        out.shown = name.substr(mark + 1);
        name = name.substr(0, mark);
    }
    if (startsWith(name, "txt:")) {
        at = name.indexOf("@");
        out.role = "txt";
        out.key = at < 0 ? name.substr(4) : name.substring(4, at);
        out.token = at < 0 ? "" : name.substr(at + 1);
    } else if (startsWith(name, "img:")) {
        out.role = "img";
        out.key = name.substr(4);
    } else if (startsWith(name, "color:")) {
        out.role = "color";
        out.tokens = name.substr(6).split(",");
        out.token = out.tokens[0];
    }
    return out;
}

function isComp(item) { return item instanceof CompItem; }

// The one composition of an id, or else of a name.
function composition(id, name) {
    var found = [], i, item;
    for (i = 1; i <= app.project.numItems; i += 1) {
        item = app.project.item(i);
        if (isComp(item) && item.id === id) { return item; }
        if (isComp(item) && item.name === name) { found.push(item); }
    }
    if (found.length === 0) { stop("comp_not_found", name, "there is no composition of this name"); }
    if (found.length > 1) { stop("ambiguous_name", name, found.length + " compositions have this name"); }
    return found[0];
}

// A composition and all that are shown in it, each once.
function shownIn(main) {
    var found = [main], i, n, source;
    for (i = 0; i < found.length; i += 1) {
        for (n = 1; n <= found[i].numLayers; n += 1) {
            source = found[i].layer(n).source;
            if (source && isComp(source) && !contains(found, source)) { found.push(source); }
        }
    }
    return found;
}

// All compositions of the project, shown or not.
function everyComp() {
    var found = [], i;
    for (i = 1; i <= app.project.numItems; i += 1) { if (isComp(app.project.item(i))) { found.push(app.project.item(i)); } }
    return found;
}

// A field that nothing here shows: another scene does, or nobody, and then it is told.
function unknown(object, isMeant) {
    var met = false;
    eachLayer(everyComp(), function (layer, means) { met = met || isMeant(layer, means); });
    if (!met) { fail("unknown_field", object, "nothing in the project has this name"); }
}

// Calls `visit(layer, meaning, comp)` for every layer of the film.
function eachLayer(comps, visit) {
    var i, n, layer;
    for (i = 0; i < comps.length; i += 1) {
        for (n = 1; n <= comps[i].numLayers; n += 1) {
            layer = comps[i].layer(n);
            visit(layer, meaning(layer.name), comps[i]);
        }
    }
}

// The one layer for a text or a picture: by the ids that were kept of it, or else the only one of its name.
function target(comps, role, key) {
    var name = role + ":" + key, kept = null, byId = [], byName = [], i;
    for (i = 0; i < job.targets.length; i += 1) { if (job.targets[i].name === name) { kept = job.targets[i]; } }
    eachLayer(comps, function (layer, means, comp) {
        if (kept && comp.id === kept.comp && layer.id === kept.layer) { byId.push(layer); }
        if (means.role === role && means.key === key) { byName.push(layer); }
    });
    if (byId.length === 1) { byName = byId; }
    if (byName.length === 0) {
        unknown(name, function (layer, means) { return means.role === role && means.key === key; });
        return null;
    }
    if (byName.length > 1) { fail("ambiguous_name", name, byName.length + " layers have this name"); return null; }
    manifest.targets.push({ name: name, comp: byName[0].containingComp.id, layer: byName[0].id || 0 });
    return byName[0];
}
