"""KServe serving a SavedModel; run by the Python of KServe's own environment.

`python kserve_server.py SAVED_MODEL PORT SITE_PACKAGES` or `… ask URL` with KServe's own client.
TensorFlow comes from SITE_PACKAGES, behind KServe's own packages.
"""

import asyncio
import base64
import sys


def serve(folder, port, site_packages):
    sys.path.append(site_packages)
    import kserve
    import numpy as np
    import tensorflow as tf

    class Served(kserve.Model):
        """A TensorFlow predictor of KServe: the inputs of a signature to its outputs."""

        def load(self):
            self.loaded = tf.saved_model.load(folder)
            self.ready = True
            return True

        def predict(self, payload, headers=None, response_headers=None):
            function = self.loaded.signatures[payload["signature_name"]]
            specs = function.structured_input_signature[1]
            tensors = {
                name: tf.constant(plain(payload["inputs"][name]), specs[name].dtype)
                for name in specs
            }
            outputs = {name: value.numpy() for name, value in function(**tensors).items()}
            return {
                "outputs": {
                    name: text(name, value)
                    if isinstance(value, bytes)
                    else np.asarray(value).tolist()
                    for name, value in outputs.items()
                }
            }

    def plain(value):
        return base64.b64decode(value["b64"]) if isinstance(value, dict) else value

    def text(name, value):
        coded = {"b64": base64.b64encode(value).decode()}
        return coded if name.endswith("_bytes") else value.decode()

    model = Served("kerasseg")
    model.load()
    kserve.ModelServer(http_port=int(port), enable_grpc=False, workers=1).start([model])


def ask(url):
    """KServe's own client of the V1 protocol asks a server of ours."""
    from kserve import InferenceRESTClient, RESTConfig

    async def run():
        client = InferenceRESTClient(RESTConfig(protocol="v1", timeout=30))
        data = {"instances": [[[[[0.0, 100.0, -100.0, 5.0]]]]]}
        answer = await client.infer(url, data, model_name="kerasseg")
        print(answer["predictions"] if isinstance(answer, dict) else answer)

    asyncio.run(run())


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        ask(sys.argv[2])
    else:
        serve(*sys.argv[1:])
