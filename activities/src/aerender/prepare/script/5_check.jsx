// ---- what is missing ----

function checkFonts() {
    var i, fonts = app.fonts ? app.fonts.missingOrSubstitutedFonts : null, used = app.project.usedFonts;
    for (i = 0; used && i < used.length; i += 1) { manifest.fonts.used.push(String(used[i].font.postScriptName)); }
    manifest.fonts.checked = !!fonts;
    for (i = 0; fonts && i < fonts.length; i += 1) {
        fail("missing_font", fonts[i].postScriptName || (fonts[i].familyName + " " + fonts[i].styleName), "the node does not have it");
    }
}

// Windows tells a path with the case in which somebody wrote it, and knows it in any. A neighbour whose name only begins like the
// folder's is not in it.
function liesIn(path, outer) {
    if (startsWith(String($.os), "Windows")) {
        path = path.toLowerCase().split("\\").join("/");
        outer = outer.toLowerCase().split("\\").join("/");
    }
    return startsWith(path, outer + "/");
}

function checkFootage() {
    var i, item, path, inside = new File(folder + "package").fsName;
    for (i = 1; i <= app.project.numItems; i += 1) {
        item = app.project.item(i);
        if (!(item instanceof FootageItem) || !item.mainSource || item.usedIn.length === 0) { continue; }
        path = item.mainSource.file ? item.mainSource.file.fsName : "";
        if (item.footageMissing) { fail("missing_footage", item.name, "its file is not in the package"); }
        else if (path !== "" && !liesIn(path, inside)) { fail("foreign_path", item.name, "its file lies outside of the package"); }
    }
}

function checkEffects(comps) {
    var known = [], i;
    for (i = 0; app.effects && i < app.effects.length; i += 1) { known.push(app.effects[i].matchName); }
    if (known.length === 0) { return; }
    eachLayer(comps, function (layer) {
        var parade = layer.property("ADBE Effect Parade"), n, name;
        for (n = 1; parade && n <= parade.numProperties; n += 1) {
            name = parade.property(n).matchName;
            if (!startsWith(name, "Pseudo/") && !contains(known, name)) { fail("missing_effect", name, "layer " + layer.name + " uses it"); }
        }
    });
}

// Evaluates every expression once, in the middle of its layer.
function checkExpressions(comps) {
    function look(group, layer, comp) {
        var i, property, said;
        for (i = 1; i <= group.numProperties; i += 1) {
            property = group.property(i);
            if (property.propertyType !== PropertyType.PROPERTY) { look(property, layer, comp); continue; }
            if (!property.canSetExpression || !property.expressionEnabled || property.expression === "") { continue; }
            said = "";
            try { property.valueAtTime(middle(layer), false); } catch (e) { said = e.message || String(e); }
            said = property.expressionError || said;
            if (said) { fail("expression_error", comp.name + " / " + layer.name + " / " + property.name, said); }
        }
    }
    eachLayer(comps, function (layer, means, comp) { look(layer, layer, comp); });
}
