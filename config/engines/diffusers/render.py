#!/usr/bin/env python3
"""A pipeline of diffusers, kept loaded, behind Penstock's engine process: render.py MODEL, a folder or a name on the Hub."""

import base64, io, json, queue, sys, threading, time


def say(**line):
    print(json.dumps(line), flush=True)


say(penstock=1)
try:
    import torch
    from diffusers import AutoPipelineForText2Image
except ImportError as missing:
    sys.exit(f"{missing.name} is missing: pip install torch diffusers transformers accelerate")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pipeline = AutoPipelineForText2Image.from_pretrained(sys.argv[1], torch_dtype=torch.float16 if DEVICE == "cuda" else torch.float32)
pipeline.to(DEVICE)
jobs, unwanted = queue.Queue(), set()


def listen():
    for line in sys.stdin:
        told = json.loads(line)
        jobs.put(told) if "job" in told else unwanted.add(told.get("cancel"))
    jobs.put(None)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def answer(job):
    number, request = job["job"], {**json.loads(job["body"]), **job.get("override", {})}
    steps, seed = request.get("steps", 30), request.get("seed")
    width, height = map(int, request.get("size", "512x512").split("x"))

    def after_step(pipe, step, _, tensors):
        pipe._interrupt = number in unwanted  # diffusers' own way: the steps that are left do nothing
        say(job=number, progress=min((step + 1) / steps, 1), step=step + 1, steps=steps)
        if step % 5 == 4 and not pipe._interrupt and hasattr(pipe, "vae"):
            with torch.no_grad():
                decoded = pipe.vae.decode(tensors["latents"][:1] / pipe.vae.config.scaling_factor).sample
            say(job=number, preview={"type": "image/png", "base64": png(pipe.image_processor.postprocess(decoded)[0].resize((256, 256)))})
        return tensors

    images = pipeline(request["prompt"], num_inference_steps=steps, width=width, height=height,
                      num_images_per_prompt=request.get("n", 1), callback_on_step_end=after_step,
                      generator=None if seed is None else torch.Generator(DEVICE).manual_seed(seed)).images
    if number in unwanted:
        return say(job=number, error={"code": "cancelled", "message": "Nobody waits for it."})
    data = [{"b64_json": png(image)} for image in images]
    with open("images.json", "w") as file:  # a file, as images are longer than a line may be
        json.dump({"created": int(time.time()), "data": data}, file)
    say(job=number, result={"type": "application/json", "file": "images.json"}, usage={"completion_tokens": steps * len(images)})


threading.Thread(target=listen, daemon=True).start()
say(ready=True)
while (job := jobs.get()) is not None:
    try:
        answer(job)
    except (KeyError, TypeError, ValueError) as error:
        say(job=job["job"], error={"code": "invalid_request", "message": f"{type(error).__name__}: {error}"})
