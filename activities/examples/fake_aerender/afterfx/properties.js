// Properties, groups of them, and texts, as scripts see them. Source: After Effects scripting guide.
// Nothing here uses what ECMAScript 3 lacks in its library: es3.js takes that away before the script runs.

const PropertyType = { PROPERTY: 6212, INDEXED_GROUP: 6213, NAMED_GROUP: 6214 };
const PropertyValueType = { OneD: 6417, TwoD: 6414, COLOR: 6418, TEXT_DOCUMENT: 6421, MARKER: 6420, NO_VALUE: 6412 };

function copied(value) {
    if (value instanceof TextDocument) { return new TextDocument(value); }
    return value instanceof Array ? value.slice() : value;
}

class Property {
    constructor(name, matchName, valueType, value) {
        this.name = name;
        this.matchName = matchName;
        this.propertyType = PropertyType.PROPERTY;
        this.propertyValueType = valueType;
        this.canSetExpression = true;
        this.expression = "";
        this.expressionEnabled = false;
        this.expressionError = "";
        this.fails = "";
        this.kept = value;
        this.keys = [];
    }

    get numKeys() { return this.keys.length; }

    // A copy, as in life: changing it changes nothing until it is set.
    get value() { return copied(this.kept); }

    keyValue(k) { return copied(this.key(k).value); }
    keyTime(k) { return this.key(k).time; }
    removeKey(k) { this.key(k); this.keys.splice(k - 1, 1); }

    key(k) {
        if (!this.keys[k - 1]) { throw new Error("After Effects error: no keyframe " + k); }
        return this.keys[k - 1];
    }

    setValue(value) {
        if (this.keys.length > 0) { throw new Error("After Effects error: Can not \"setValue\" with this property, because it has keyframes."); }
        this.kept = this.taken(value);
    }

    setValueAtKey(k, value) { this.key(k).value = this.taken(value); }

    setValueAtTime(time, value) {
        for (const key of this.keys) { if (Math.abs(key.time - time) < 1e-6) { key.value = this.taken(value); return; } }
        this.keys.push({ time: time, value: this.taken(value) });
        this.keys.sort((a, b) => a.time - b.time);
    }

    valueAtTime() {
        if (this.expressionEnabled && this.fails) { this.expressionError = this.fails; }
        return this.value;
    }

    taken(value) {
        if (this.propertyValueType === PropertyValueType.TEXT_DOCUMENT && !(value instanceof TextDocument)) {
            throw new Error("After Effects error: a text document is expected");
        }
        if (this.propertyValueType === PropertyValueType.COLOR && value.length !== 4) {
            throw new Error("After Effects error: Value array does not have 4 elements.");
        }
        const kept = copied(value);
        if (host.settings.alters_text && kept instanceof TextDocument) { kept.text = kept.text.substr(0, 3); }
        if (host.settings.throws) { throw new Error("After Effects error: internal trouble"); }
        return kept;
    }
}

class PropertyGroup {
    constructor(name, matchName, children) {
        this.name = name;
        this.matchName = matchName;
        this.propertyType = PropertyType.NAMED_GROUP;
        this.children = children || [];
    }

    get numProperties() { return this.children.length; }

    property(which) {
        if (typeof which === "number") {
            if (!this.children[which - 1]) { throw new Error("After Effects error: no property " + which); }
            return this.children[which - 1];
        }
        for (const child of this.children) { if (child.matchName === which || child.name === which) { return child; } }
        return null;
    }
}

class TextDocument {
    constructor(other) {
        this.text = other.text;
        this.font = other.font;
        this.fontSize = other.fontSize;
        this.autoLeading = true;
        this.applyFill = other.applyFill;
        this.fillColor = copied(other.fillColor);
        this.boxText = other.boxText;
        this.boxTextSize = copied(other.boxTextSize);
    }

    // Width and height of what is drawn: every letter half as wide as high, lines broken at letters, and nothing
    // below the floor of a box.
    drawn() {
        const letter = this.fontSize / 2, room = this.boxText ? Math.max(Math.floor(this.boxTextSize[0] / letter), 1) : Infinity;
        let lines = 0, widest = 0;
        for (const line of this.text.split("\r")) {
            lines += Math.max(Math.ceil(line.length / room), 1);
            widest = Math.max(widest, Math.min(line.length, room) * letter);
        }
        const height = lines * this.fontSize * 1.2;
        return { top: 0, left: 0, width: widest, height: this.boxText ? Math.min(height, this.boxTextSize[1]) : height };
    }
}
