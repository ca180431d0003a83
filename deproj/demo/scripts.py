"""What the page does in the browser itself, in JavaScript."""

from __future__ import annotations

__all__ = ["BEGIN", "LINKED", "SHOW_PICTURES", "SHOW_PROBLEM"]

#: A picture that is dropped anywhere on the page, but not in the box for one, goes where settings are restored from. Enter in a
#: slider's box of numbers draws, as in the other boxes, and so does an arrow on a slider once it rests: Gradio lets a slider be
#: let go with the mouse alone. What is wrong goes from the top of the window when it is clicked, and when anything is typed.
BEGIN = """() => {
    document.addEventListener("dragover", event => event.preventDefault());
    document.addEventListener("drop", event => {
        if (event.target.closest?.("#photo")) return;
        event.preventDefault();
        const chooser = document.querySelector("#restore input[type=file], input[type=file]:has(+ #restore)");
        if (!chooser || !event.dataTransfer?.files.length) return;
        chooser.files = event.dataTransfer.files;
        chooser.dispatchEvent(new Event("change", { bubbles: true }));
    });
    document.addEventListener("keydown", event => {
        if (event.key !== "Enter" || !event.target.matches?.('input[type=number][aria-label^="number input for"]')) return;
        event.target.blur();  // by which the number counts
        setTimeout(() => document.querySelector("#go")?.click(), 100);
    });
    let resting;
    document.addEventListener("keyup", event => {
        if (!event.target.matches?.("input[type=range]") || !/^(Arrow|Page|Home|End)/.test(event.key)) return;
        clearTimeout(resting);
        resting = setTimeout(() => document.querySelector("#go")?.click(), 600);
    });
    const near = () => document.body.classList.remove("far");
    document.addEventListener("input", near);
    document.addEventListener("click", event => { if (event.target.closest?.("#problem")) near(); });
}"""

#: The link as a whole; the address is the link, so that the page comes back as it was when it is loaded again.
LINKED = """query => {
    const link = new URL(query, location.href).href;
    history.replaceState(null, "", link);
    return link;
}"""

#: On a phone the pictures are below what was clicked.
SHOW_PICTURES = """() => {
    document.querySelector(".picture")?.scrollIntoView({ block: "nearest", behavior: "smooth" });
}"""

#: What is wrong is shown at the top of the window where its own place is out of sight.
SHOW_PROBLEM = """async () => {
    document.body.classList.remove("far");
    for (const pause of [100, 600]) {  // until it is on the page, and until the page has gone to its pictures
        await new Promise(done => setTimeout(done, pause));
        const problem = document.querySelector("#problem"), box = problem?.getBoundingClientRect();
        const hidden = box && (box.top < 0 || box.bottom > innerHeight);
        if (hidden && problem.textContent.trim()) document.body.classList.add("far");
    }
}"""
