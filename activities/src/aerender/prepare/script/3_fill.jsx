// ---- texts ----

// Line breaks of every kind become After Effects' own.
function asLines(words) { return words.split("\r\n").join("\r").split("\n").join("\r"); }

// Applies `change` to a text's document: at every keyframe, if it has any.
function changeText(property, change) {
    var k, changed;
    if (property.numKeys === 0) {
        changed = property.value;
        change(changed);
        property.setValue(changed);
        return;
    }
    for (k = 1; k <= property.numKeys; k += 1) {
        changed = property.keyValue(k);
        change(changed);
        property.setValueAtKey(k, changed);
    }
}

function middle(layer) { return (layer.inPoint + layer.outPoint) / 2; }

// A number in a layer's comment: `width=800 smallest=0.5`.
function remark(layer, name, otherwise) {
    var words = String(layer.comment || "").split(" "), i, number;
    for (i = 0; i < words.length; i += 1) {
        number = parseFloat(words[i].substr(name.length + 1));
        if (startsWith(words[i], name + "=") && number > 0) { return number; }
    }
    return otherwise;
}

// Whether a text has room. One in a box is measured in a box without a floor: what hangs out is not drawn.
function hasRoom(layer, property, box, width) {
    var drawn;
    if (box) { changeText(property, function (d) { d.boxTextSize = [box[0], box[1] * 20]; }); }
    drawn = layer.sourceRectAtTime(middle(layer), false);
    if (box) { changeText(property, function (d) { d.boxTextSize = box; }); }
    if (box && drawn.height > box[1] + 1) { return false; }
    return drawn.width <= width + 1;
}

// Makes a text smaller, a bit at a time, until it has room or is as small as it may be.
function fit(layer, property, key) {
    var first = property.numKeys === 0 ? property.value : property.keyValue(1);
    var box = first.boxText ? [first.boxTextSize[0], first.boxTextSize[1]] : null;
    var width = remark(layer, "width", box ? box[0] : 0), smallest = remark(layer, "smallest", 0.4);
    var scale = 1, smaller;
    if (width === 0) { return; }
    while (!hasRoom(layer, property, box, width)) {
        if (scale <= smallest) { warn("text_overflow", "txt:" + key, "it does not fit at its smallest size"); return; }
        smaller = Math.max(scale * 0.97, smallest);
        changeText(property, function (d) {
            d.fontSize = d.fontSize * smaller / scale;
            if (!d.autoLeading) { d.leading = d.leading * smaller / scale; }
        });
        scale = smaller;
    }
}

function setTexts(comps) {
    var i, layer, property, words, echo;
    for (i = 0; i < job.texts.length; i += 1) {
        layer = target(comps, "txt", job.texts[i].key);
        if (!layer) { continue; }
        property = layer.property("ADBE Text Properties");
        property = property ? property.property("ADBE Text Document") : null;
        if (!property) { fail("unknown_field", "txt:" + job.texts[i].key, "the layer is no text"); continue; }
        if (property.expressionEnabled && property.expression !== "") {
            property.expressionEnabled = false;
            warn("expression_disabled", layer.name, "the expression on its words gave way to the customer's");
        }
        words = asLines(job.texts[i].words);
        changeText(property, function (d) { d.text = words; });
        fit(layer, property, job.texts[i].key);
        echo = (property.numKeys === 0 ? property.value : property.keyValue(1)).text;
        manifest.texts.push({ key: job.texts[i].key, words: echo });
    }
}

// ---- pictures ----

function imported(file, object) {
    try { return app.project.importFile(new ImportOptions(new File(folder + file))); }
    catch (e) { fail("bad_media", object, e.message || e); return null; }
}

// The picture is fitted into a composition of the slot's size, which takes the place of the slot's source: the
// layer's own movement, masks and effects stay as they are.
function setImages(comps) {
    var i, wish, layer, picture, slot, inner, x, y, scale;
    for (i = 0; i < job.images.length; i += 1) {
        wish = job.images[i];
        layer = target(comps, "img", wish.key);
        if (!layer) { continue; }
        if (!layer.source) { fail("unknown_field", "img:" + wish.key, "the layer shows no picture"); continue; }
        picture = imported(wish.file, "img:" + wish.key);
        if (!picture) { continue; }
        slot = app.project.items.addComp("slot:" + wish.key, layer.source.width, layer.source.height, 1,
            Math.max(layer.source.duration || 0, layer.containingComp.duration), layer.containingComp.frameRate);
        inner = slot.layers.add(picture);
        x = slot.width / picture.width;
        y = slot.height / picture.height;
        scale = wish.fit === "contain" ? Math.min(x, y) : Math.max(x, y);
        inner.property("ADBE Transform Group").property("ADBE Scale").setValue([scale * 100, scale * 100]);
        inner.property("ADBE Transform Group").property("ADBE Position").setValue([slot.width / 2, slot.height / 2]);
        layer.replaceSource(slot, false);
    }
}

// ---- colours ----

// One value for all times, whatever moved the property before.
function constant(property, value) {
    while (property.numKeys > 0) { property.removeKey(1); }
    if (property.expressionEnabled && property.expression !== "") { property.expressionEnabled = false; }
    property.setValue(value);
}

function colorOf(token, met) {
    for (var i = 0; i < job.colors.length; i += 1) {
        if (job.colors[i].token === token) { met.push(token); return job.colors[i].rgb; }
    }
    return null;
}

// The first colour of an effect: of Fill and Colour Control the only one.
function colorProperty(effect) {
    for (var i = 1; i <= effect.numProperties; i += 1) {
        if (effect.property(i).propertyValueType === PropertyValueType.COLOR) { return effect.property(i); }
    }
    return null;
}

// Effects, fills and strokes of the name color:TOKEN, wherever they are in a layer.
function setNamedColors(group, met) {
    var i, property, means, rgb, place;
    for (i = 1; i <= group.numProperties; i += 1) {
        property = group.property(i);
        if (property.propertyType === PropertyType.PROPERTY) { continue; }
        means = meaning(property.name);
        rgb = means.role === "color" ? colorOf(means.token, met) : null;
        if (rgb) {
            if (means.tokens.length > 1) { fail("unsupported", property.name, "scripts cannot set the colours of a gradient"); }
            if (property.matchName === "ADBE Vector Graphic - Fill") { place = property.property("ADBE Vector Fill Color"); }
            else if (property.matchName === "ADBE Vector Graphic - Stroke") { place = property.property("ADBE Vector Stroke Color"); }
            else { place = colorProperty(property); }
            if (place) { constant(place, [rgb[0], rgb[1], rgb[2], 1]); }
            else { fail("unsupported", property.name, "it has no colour that a script can set"); }
        }
        setNamedColors(property, met);
    }
}

// Whether a token's name stands somewhere in a group of properties.
function isNamedIn(group, token) {
    var i, property;
    for (i = 1; i <= group.numProperties; i += 1) {
        property = group.property(i);
        if (property.propertyType === PropertyType.PROPERTY) { continue; }
        if ((meaning(property.name).token === token) || isNamedIn(property, token)) { return true; }
    }
    return false;
}

function unknownColor(token) {
    unknown("color:" + token, function (layer, means) { return (means.token === token) || isNamedIn(layer, token); });
}

function setColors(comps) {
    var met = [], solids = [], i;
    function setSolid(layer, rgb, token) {
        var n;
        for (n = 0; n < solids.length; n += 1) {
            if (solids[n].id === layer.source.id && solids[n].token !== token) {
                fail("unsupported", layer.name, "it shares one solid with a layer of another colour");
                return;
            }
        }
        solids.push({ id: layer.source.id, token: token });
        layer.source.mainSource.color = [rgb[0], rgb[1], rgb[2]];
    }
    eachLayer(comps, function (layer, means) {
        var rgb = means.token === "" ? null : colorOf(means.token, met), i, groups;
        if (rgb && means.role === "txt") {
            changeText(layer.property("ADBE Text Properties").property("ADBE Text Document"), function (d) {
                d.applyFill = true;
                d.fillColor = [rgb[0], rgb[1], rgb[2]];
            });
        }
        if (rgb && means.role === "color" && layer.source && layer.source.mainSource instanceof SolidSource) {
            setSolid(layer, rgb, means.token);
        }
        groups = ["ADBE Effect Parade", "ADBE Root Vectors Group"];
        for (i = 0; i < groups.length; i += 1) {
            if (layer.property(groups[i])) { setNamedColors(layer.property(groups[i]), met); }
        }
    });
    for (i = 0; i < job.colors.length; i += 1) {
        if (!contains(met, job.colors[i].token)) { unknownColor(job.colors[i].token); }
    }
}

// ---- what is shown ----

function setVisibility(comps) {
    function apply(wish) {
        var met = false;
        eachLayer(comps, function (layer, means) {
            if (means.shown !== wish.key) { return; }
            met = true;
            if (wish.shown) { return; }
            layer.enabled = false;
            if (layer.hasAudio) { layer.audioEnabled = false; }
        });
        if (!met) { unknown("?" + wish.key, function (layer, means) { return means.shown === wish.key; }); }
    }
    for (var i = 0; i < job.visibility.length; i += 1) { apply(job.visibility[i]); }
}
