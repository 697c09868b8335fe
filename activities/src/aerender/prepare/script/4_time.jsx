// ---- scenes and time ----

function sceneOf(layer) {
    var source = layer.source;
    return (source && isComp(source) && startsWith(source.name, "scene:")) ? source.name.substr(6) : "";
}

// From and to, in main's time, of the part of a scene that gives way when its length changes.
function stretch(main, id, start, end) {
    var markers = main.markerProperty, k, value;
    for (k = 1; markers && k <= markers.numKeys; k += 1) {
        value = markers.keyValue(k);
        if (value.comment === "stretch:" + id) {
            return [Math.max(markers.keyTime(k), start), Math.min(markers.keyTime(k) + value.duration, end)];
        }
    }
    return [start, end];
}

// Gives a scene's layer another length: only the part that gives way runs slower or faster. Whether it had to.
function remap(layer, part, from, to) {
    var property, k, times, i, isOurs, length = from.end - from.start, change = (to.end - to.start) - length;
    if (Math.abs(change) < 0.0001) { return false; }
    // Too little is left of the part that gives way: all of the scene does.
    if (part[1] - part[0] + change < 0.04) { part = [from.start, from.end]; }
    times = [[0, 0], [part[0] - from.start, part[0] - from.start],
        [part[1] - from.start + change, part[1] - from.start], [length + change, length]];
    layer.timeRemapEnabled = true;
    property = layer.property("ADBE Time Remapping");
    for (i = 0; i < times.length; i += 1) { property.setValueAtTime(layer.startTime + times[i][0], from.source + times[i][1]); }
    // The keyframes that came by themselves go.
    for (k = property.numKeys; k >= 1; k -= 1) {
        isOurs = false;
        for (i = 0; i < times.length; i += 1) {
            if (Math.abs(property.keyTime(k) - layer.startTime - times[i][0]) < 0.0001) { isOurs = true; }
        }
        if (!isOurs) { property.removeKey(k); }
    }
    return true;
}

// Puts the scenes into the customer's order, each with its length; they overlap as the template's own do.
function setScenes(main) {
    var found = [], ids = [], i, n, layer, overlap, at = 0, from, to, length, used = [];
    // A scene alone: the others are of no concern to it.
    if (startsWith(main.name, "scene:")) {
        for (i = 0; i < job.scenes.length; i += 1) {
            if (main.name === "scene:" + job.scenes[i].id) { main.duration = job.scenes[i].frames / main.frameRate; }
        }
        return;
    }
    for (i = main.numLayers; i >= 1; i -= 1) {
        layer = main.layer(i);
        if (sceneOf(layer) !== "") { found.push({ id: sceneOf(layer), layer: layer, start: layer.inPoint, end: layer.outPoint }); }
    }
    found.sort(function (a, b) { return a.start - b.start; });
    overlap = found.length > 1 ? Math.max(found[0].end - found[1].start, 0) : 0;
    for (i = 0; i < job.scenes.length; i += 1) {
        from = null;
        for (n = 0; n < found.length; n += 1) { if (found[n].id === job.scenes[i].id) { from = found[n]; } }
        if (!from) { fail("unknown_field", "scene:" + job.scenes[i].id, "there is no such scene"); continue; }
        layer = contains(ids, from.id) ? from.layer.duplicate() : from.layer;
        ids.push(from.id);
        length = job.scenes[i].frames / main.frameRate;
        to = { start: at, end: at + length };
        used.push({ layer: layer, from: from, to: to, part: stretch(main, from.id, from.start, from.end),
            source: from.start - from.layer.startTime });
        at = to.end - overlap;
    }
    if (used.length === 0) { return; }
    main.duration = at + overlap;
    for (i = 0; i < used.length; i += 1) {
        layer = used[i].layer;
        from = { start: used[i].from.start, end: used[i].from.end, source: used[i].source };
        layer.startTime = used[i].to.start;
        // Without a remap the source goes on as before; with one the layer begins where its keyframes do.
        if (!remap(layer, used[i].part, from, used[i].to)) { layer.startTime = used[i].to.start - from.source; }
        layer.inPoint = used[i].to.start;
        layer.outPoint = used[i].to.end;
    }
    for (n = 0; n < found.length; n += 1) { if (!contains(ids, found[n].id)) { found[n].layer.remove(); } }
    for (i = 1; i <= main.numLayers; i += 1) {
        layer = main.layer(i);
        // What spanned the whole film still does.
        if (sceneOf(layer) === "" && layer.outPoint < main.duration) { layer.outPoint = main.duration; }
    }
}

// ---- the render queue ----

// Frames are numbered from 0, whatever the project shows.
function numberFromZero(comp) {
    app.project.displayStartFrame = 0;
    if (comp.displayStartTime !== 0) { comp.displayStartTime = 0; }
}

// A composition of the size that is wanted around one of another size.
function sized(comp) {
    if (comp.width === job.size[0] && comp.height === job.size[1]) { return comp; }
    var outer = app.project.items.addComp("sized:" + comp.name, job.size[0], job.size[1], comp.pixelAspect, comp.duration, comp.frameRate);
    fill(outer, comp);
    return outer;
}

// Puts a composition into another, as large as that.
function fill(outer, comp) {
    var layer = outer.layers.add(comp), place = layer.property("ADBE Transform Group");
    place.property("ADBE Scale").setValue([100 * outer.width / comp.width, 100 * outer.height / comp.height]);
    place.property("ADBE Position").setValue([outer.width / 2, outer.height / 2]);
    return layer;
}

// Stills of several compositions as the frames of one: After Effects is started once for all of them.
function reel(stills) {
    var first = composition(null, stills[0].composition), rate = first.frameRate, i, comp, layer;
    var outer = app.project.items.addComp("stills", job.size[0], job.size[1], first.pixelAspect, stills.length / rate, rate);
    outer.bgColor = first.bgColor;
    for (i = 0; i < stills.length; i += 1) {
        comp = composition(null, stills[i].composition);
        layer = fill(outer, comp);
        layer.startTime = i / rate - stills[i].frame / comp.frameRate;
        layer.inPoint = i / rate;
        layer.outPoint = (i + 1) / rate;
    }
    return outer;
}

// One new item with the settings that the designer kept in the queue: an old one would keep its old time span.
function queue(main) {
    var items = app.project.renderQueue, kept = [], model = null, comp = sized(main), i, item, output;
    for (i = 1; i <= items.numItems; i += 1) {
        kept.push(items.item(i));
        if (!model || items.item(i).comp.id === main.id) { model = items.item(i); }
    }
    if (!model) { stop("no_queue_item", main.name, "the project has no render queue item to take settings from"); }
    if (model.comp.id === comp.id) {
        item = model.duplicate();
    } else {
        item = items.items.add(comp);
        item.setSettings(model.getSettings(GetSettingsFormat.STRING_SETTABLE));
        item.outputModule(1).setSettings(model.outputModule(1).getSettings(GetSettingsFormat.STRING_SETTABLE));
    }
    for (i = 0; i < kept.length; i += 1) { kept[i].remove(); }
    item.render = true;
    item.timeSpanStart = 0;
    item.timeSpanDuration = comp.duration;
    output = item.outputModule(1);
    output.file = new File(folder + job.frames);
    try { output.setSetting("Use Comp Frame Number", true); } catch (e) { /* Older versions number so anyway, or the driver sees it. */ }
    if (Math.abs(item.timeSpanDuration - comp.duration) * comp.frameRate > 0.5) {
        stop("stale_span", main.name, "the queue item keeps another time span");
    }
    manifest.item = items.numItems;
}
