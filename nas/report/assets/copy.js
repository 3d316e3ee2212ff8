'use strict';
// A button with data-copy puts its text on the clipboard, or selects it where the browser does not let it.
async function copy(button) {
  const text = button.dataset.copy, before = button.textContent;
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    const area = Object.assign(document.createElement('textarea'), {value: text, readOnly: true});
    document.body.append(area);
    area.select();
    done = document.execCommand('copy');
    area.remove();
    button.focus();
  }
  button.textContent = done ? 'Copied' : 'Not allowed';
  setTimeout(() => { button.textContent = before; }, 1500);
}

document.addEventListener('click', event => {
  const button = event.target.closest('button[data-copy]');
  if (button) copy(button);
});
