// Gradio's page takes a file only if the browser says that it is a picture, and a browser says nothing of some that are:
// `IMG_0001.HEIC`, by its ending in capitals or on a system that does not know it. Their type is added here.
() => {
  const picture = /\.(avif|bmp|gif|hei[cf]s?|ico|jp2|jpe?g|pcx|png|p[bgnp]m|qoi|tga|tiff?|webp)$/i;
  const unknown = (file) => !file.type && picture.test(file.name);
  const typed = (files) => {
    const all = new DataTransfer();
    for (const file of files) {
      const ending = file.name.match(picture)?.[1].toLowerCase();
      all.items.add(unknown(file) ? new File([file], file.name, { type: `image/${ending}` }) : file);
    }
    return all;
  };
  document.addEventListener('change', (event) => {
    const input = event.target;
    if (input.type !== 'file' || ![...(input.files ?? [])].some(unknown)) return;
    event.stopImmediatePropagation();
    input.files = typed(input.files).files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
  }, true);
  document.addEventListener('drop', (event) => {
    const files = event.dataTransfer?.files ?? [];
    if (!event.isTrusted || ![...files].some(unknown)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const dropped = { bubbles: true, cancelable: true, dataTransfer: typed(files) };
    event.target.dispatchEvent(new DragEvent('drop', dropped));
  }, true);
}
