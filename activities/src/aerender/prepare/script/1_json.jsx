// Prepares a project for one render: reads job.json beside this file, fills in what the customer gave, looks for what
// is missing, saves a copy with one render queue item, and says so in manifest.json. Run by After Effects:
//
//     AfterFX.exe -m -noui -r …/prepare.jsx
//
// This file is constant: what a customer gives is read as data and never becomes code. It is ExtendScript, that is
// ECMAScript 3: no JSON, no let, no array methods. ExtendScript binds nested ?: and mixed && || otherwise than
// others do, so neither is used without brackets. It always begins from the template's own project, so running it again gives the same.
//
// Names that mean something (docs/after-effects.md): layers txt:KEY, txt:KEY@TOKEN, img:KEY, color:TOKEN and any
// layer …?KEY; effects, shape fills and strokes color:TOKEN; compositions scene:ID; markers stretch:ID.

// ---- JSON, all of it in ASCII: File objects of old versions are not to be trusted with more ----

function parse(text) {
    var at = 0;
    function bad() { throw new Error("job.json is broken at character " + at); }
    function blanks() { while (at < text.length && " \t\r\n".indexOf(text.charAt(at)) >= 0) { at += 1; } }
    function word(name, value) {
        if (text.substr(at, name.length) !== name) { bad(); }
        at += name.length;
        return value;
    }
    function string() {
        var parts = [], from, c;
        at += 1;
        while (true) {
            from = at;
            while (at < text.length && text.charAt(at) !== "\"" && text.charAt(at) !== "\\") { at += 1; }
            if (at >= text.length) { bad(); }
            parts.push(text.substring(from, at));
            if (text.charAt(at) === "\"") { at += 1; return parts.join(""); }
            c = text.charAt(at + 1);
            at += 2;
            if (c === "u") { parts.push(String.fromCharCode(parseInt(text.substr(at, 4), 16))); at += 4; }
            else if (c === "n") { parts.push("\n"); }
            else if (c === "r") { parts.push("\r"); }
            else if (c === "t") { parts.push("\t"); }
            else if (c === "b") { parts.push("\b"); }
            else if (c === "f") { parts.push("\f"); }
            else if (c === "\"" || c === "\\" || c === "/") { parts.push(c); }
            else { bad(); }
        }
    }
    function number() {
        var from = at;
        while (at < text.length && "+-0123456789.eE".indexOf(text.charAt(at)) >= 0) { at += 1; }
        if (at === from) { bad(); }
        return parseFloat(text.substring(from, at));
    }
    // Calls `item` for what stands between commas, up to `end`.
    function list(end, item) {
        at += 1;
        blanks();
        if (text.charAt(at) === end) { at += 1; return; }
        while (true) {
            blanks();
            item();
            blanks();
            if (text.charAt(at) === end) { at += 1; return; }
            if (text.charAt(at) !== ",") { bad(); }
            at += 1;
        }
    }
    function value() {
        var c, out, key;
        blanks();
        c = text.charAt(at);
        if (c === "\"") { return string(); }
        if (c === "{") {
            out = {};
            list("}", function () {
                if (text.charAt(at) !== "\"") { bad(); }
                key = string();
                blanks();
                if (text.charAt(at) !== ":") { bad(); }
                at += 1;
                // Names of the format only; a later field of an object is read before its key is used.
                (function (name) { out[name] = value(); }(key));
            });
            return out;
        }
        if (c === "[") {
            out = [];
            list("]", function () { out.push(value()); });
            return out;
        }
        if (c === "t") { return word("true", true); }
        if (c === "f") { return word("false", false); }
        if (c === "n") { return word("null", null); }
        return number();
    }
    var whole = value();
    blanks();
    if (at !== text.length) { bad(); }
    return whole;
}

function quoted(text) {
    var parts = ["\""], from = 0, i, code, hex;
    for (i = 0; i < text.length; i += 1) {
        code = text.charCodeAt(i);
        if (code < 32 || code > 126 || code === 34 || code === 92) {
            hex = code.toString(16);
            parts.push(text.substring(from, i), "\\u", "0000".substr(hex.length), hex);
            from = i + 1;
        }
    }
    parts.push(text.substring(from), "\"");
    return parts.join("");
}

function written(value) {
    var parts = [], key;
    if (value === null || value === undefined) { return "null"; }
    if (typeof value === "string") { return quoted(value); }
    if (typeof value === "number") { return isFinite(value) ? String(value) : "null"; }
    if (typeof value === "boolean") { return String(value); }
    if (value instanceof Array) {
        for (key = 0; key < value.length; key += 1) { parts.push(written(value[key])); }
        return "[" + parts.join(",") + "]";
    }
    for (key in value) {
        if (value.hasOwnProperty(key)) { parts.push(quoted(key) + ":" + written(value[key])); }
    }
    return "{" + parts.join(",") + "}";
}
