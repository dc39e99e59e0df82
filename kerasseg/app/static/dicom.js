// DICOM becomes NIfTI in the browser, so that names and dates of birth never reach the server.

// A DICOM file has "DICM" after 128 bytes, whatever its name is.
export async function isDicom(file) {
  if (/\.(nii|nii\.gz|zip|h5|png|jpe?g|tiff?|bmp)$/i.test(file.name)) return false;
  return (await file.slice(128, 132).text()) === "DICM";
}

// One file for each series. Its name, which is sent, has of the series' description only the words
// that `words` knows; `shown` is the description, which stays here.
export async function convertDicom(files, words) {
  const worker = new Worker(new URL("worker.jpeg.js", import.meta.url), { type: "module" });
  const answer = () => new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => data.type === "error" ? reject(new Error(data.message)) : resolve(data);
    worker.onerror = () => reject(new Error("The converter of DICOM did not start."));
  });
  try {
    await answer();
    const numbered = files.map((file, number) => ({ file, webkitRelativePath: `${number}.dcm` }));
    worker.postMessage({ fileList: numbered, cmd: ["-f", "%s_%d", "-b", "n", "-z", "n"] });
    const { convertedFiles } = await answer();
    const found = convertedFiles.filter((file) => file.name.endsWith(".nii"));
    if (!found.length) throw new Error("no image was found in them");
    return found.map((file, number) => {
      const known = file.name.toLowerCase().split(/[^a-z0-9]+/).filter((word) => words.has(word));
      const sent = new File([file], [`series${number + 1}`, ...known].join("_") + ".nii");
      return Object.assign(sent, { shown: file.name });
    });
  } catch (error) {
    throw new Error(`The DICOM files cannot be converted: ${error.message}.`);
  } finally {
    worker.terminate();
  }
}
