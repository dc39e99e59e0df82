// Requests to the server; what it refuses becomes an Error with the server's own sentence.

async function answer(response) {
  if (response.ok && response.headers.get("content-type") === "application/octet-stream") {
    return new Uint8Array(await response.arrayBuffer());
  }
  if (response.ok) return response.json();
  let sentence = `The server answered ${response.status}.`;
  try { sentence = (await response.json()).error || sentence; } catch { /* no sentence came */ }
  throw new Error(sentence);
}

async function ask(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  try {
    return await answer(await fetch(path, options));
  } catch (error) {
    throw error instanceof TypeError ? new Error("The server cannot be reached.") : error;
  }
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}) => ask("POST", path, body);
export const remove = (path) => ask("DELETE", path);

// PUT with progress, which fetch does not tell.
export function put(path, data, told = () => {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", path);
    request.upload.onprogress = (event) => told(event.loaded);
    request.onerror = () => reject(new Error("The server cannot be reached, or stopped listening."));
    request.onload = () => {
      let found = {};
      try { found = JSON.parse(request.responseText); } catch { /* no JSON */ }
      if (request.status < 300) resolve(found);
      else reject(new Error(found.error || `The server answered ${request.status}.`));
    };
    request.send(data);
  });
}

export const element = (id) => document.getElementById(id);

// An element with properties, and children that are elements or text: never markup.
export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function fill(select, options, value) {
  select.replaceChildren(...options.map(([key, text, disabled]) =>
    make("option", { value: key, textContent: text, disabled: Boolean(disabled) })));
  if (options.some(([key]) => key === value)) select.value = value;
}

export function say(sentence) {
  const alert = element("alert");
  alert.hidden = !sentence;
  alert.querySelector("span").textContent = sentence || "";
}

export const number = (value, digits = 2) =>
  value === null || value === undefined ? "–" : value.toFixed(digits);
