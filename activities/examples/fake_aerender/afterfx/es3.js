// ExtendScript is ECMAScript 3: what it does not have is taken away, so that a script which uses it fails here, too.
(function () {
    const kept = {
        Array: "constructor concat join length pop push reverse shift slice sort splice toString unshift indexOf_",
        String: "constructor charAt charCodeAt concat indexOf lastIndexOf length match replace search slice split substr substring toLowerCase toString toUpperCase valueOf",
    };
    const names = Object.getOwnPropertyNames, world = globalThis;
    for (const type of [Array, String]) {
        for (const name of names(type.prototype)) {
            if ((" " + kept[type.name] + " ").indexOf(" " + name + " ") < 0) { delete type.prototype[name]; }
        }
        for (const name of names(type)) { if (name !== "prototype" && name !== "fromCharCode") { delete type[name]; } }
    }
    for (const name of names(Object)) { if (name !== "prototype") { delete Object[name]; } }
    for (const name of ["JSON", "Map", "Set", "WeakMap", "Promise", "Proxy", "Reflect", "Symbol", "globalThis", "eval", "Function"]) {
        delete world[name];
    }
}());
