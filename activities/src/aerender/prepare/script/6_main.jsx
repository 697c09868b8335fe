// ---- all of it ----

function prepare() {
    var main, comps;
    job = parse(readFile("job.json"));
    manifest.job = job.job;
    writeFile("prepare.started", job.job);
    if (job.format !== 1) { stop("script_error", "job.json", "its format is not known"); }
    try { app.open(new File(folder + job.project)); }
    catch (e) { stop("bad_project", job.project, e.message || e); }
    main = job.stills ? reel(job.stills) : composition(job.composition_id, job.composition);
    if (Math.abs(main.frameRate - job.fps) > 0.001) { stop("wrong_rate", job.composition, main.frameRate + " frames a second instead of " + job.fps); }
    comps = shownIn(main);
    setTexts(comps);
    setColors(comps);
    setVisibility(comps);
    setImages(comps);
    if (job.scenes) { setScenes(main); }
    numberFromZero(main);
    comps = shownIn(main);
    checkFonts();
    checkFootage();
    checkEffects(comps);
    checkExpressions(comps);
    queue(main);
    if (manifest.failures.length > 0) { return; }
    app.project.save(new File(folder + job.prepared));
    manifest.ok = true;
}

app.beginSuppressDialogs();
try { prepare(); }
catch (error) {
    if (!error.isStop) { fail("script_error", "line " + (error.line || "?"), error.message || error); }
}
try { writeFile("manifest.json", written(manifest)); }
finally {
    // Nothing below may leave a question on the screen.
    try { app.project.close(CloseOptions.DO_NOT_SAVE_CHANGES); } catch (e) { /* It was not open. */ }
    app.endSuppressDialogs(false);
    app.quit();
}
