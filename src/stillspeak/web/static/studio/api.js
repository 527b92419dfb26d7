// The server's JSON API. An error is an ApiError whose message is fit to be shown.

export class ApiError extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const UNREACHABLE = "the server does not answer; is it still running?";

function errorOf(status, text) {
  try {
    const { code, message } = JSON.parse(text).error;
    return new ApiError(message, status, code);
  } catch {
    return new ApiError(`the server answered ${status} without saying why`, status);
  }
}

/** Ask for JSON; null where the answer is empty. */
export async function ask(method, path, body = undefined) {
  const options = { method, headers: {}, cache: "no-store" };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new ApiError(UNREACHABLE);
  }
  const text = await answer.text();
  if (!answer.ok) throw errorOf(answer.status, text);
  return text ? JSON.parse(text) : null;
}

/**
 * Send a file as a request's body.
 * @param {(share: number) => void} progress called with the share sent, 0 to 1
 * @param {AbortSignal} signal gives up
 */
export function upload(path, file, name, progress, signal) {
  return new Promise((resolve, reject) => {
    // fetch does not tell how much has been sent.
    const request = new XMLHttpRequest();
    request.open("POST", `${path}?name=${encodeURIComponent(name.slice(0, 300))}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    };
    request.onload = () =>
      request.status < 300
        ? resolve(JSON.parse(request.responseText))
        : reject(errorOf(request.status, request.responseText));
    request.onerror = () => reject(new ApiError(UNREACHABLE));
    request.onabort = () => reject(new DOMException("given up", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
