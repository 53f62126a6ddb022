#!/usr/bin/python3
"""A running ComfyUI behind Penstock's engine process: comfyui.py URL WORKFLOW. The workflow is one that ComfyUI has saved by
"Export (API)"; the text "%prompt%" in it becomes the prompt, and "%seed%" the seed."""

import json, queue, random, sys, threading, time, urllib.error, urllib.parse, urllib.request

URL, WORKFLOW = sys.argv[1].rstrip("/"), open(sys.argv[2]).read()


def say(**line):
    print(json.dumps(line), flush=True)


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, {"Content-Type": "application/json"}), timeout=60) as answer:
        return answer.read()


def listen():
    for line in sys.stdin:
        told = json.loads(line)
        jobs.put(told) if "job" in told else unwanted.add(told.get("cancel"))
    jobs.put(None)


def answer(job):
    number, request = job["job"], {**json.loads(job["body"]), **job.get("override", {})}
    seed = request.get("seed", random.randrange(1 << 32))
    workflow = WORKFLOW.replace('"%seed%"', json.dumps(seed)).replace('"%prompt%"', json.dumps(request["prompt"]))
    prompt = json.loads(ask("/prompt", {"prompt": json.loads(workflow)}))["prompt_id"]
    while prompt not in (history := json.loads(ask(f"/history/{prompt}"))):
        if number in unwanted:
            ask("/queue", {"delete": [prompt]})
            ask("/interrupt", {"prompt_id": prompt})
            return say(job=number, error={"code": "cancelled", "message": "Nobody waits for it."})
        time.sleep(0.1)
    images = [image for output in history[prompt]["outputs"].values() for image in output.get("images", [])]
    if not images:
        return say(job=number, error={"code": "failed", "message": f"ComfyUI made no image: {history[prompt].get('status')}"})
    with open("image.png", "wb") as file:
        file.write(ask("/view?" + urllib.parse.urlencode(images[0])))
    say(job=number, result={"type": "image/png", "file": "image.png"})


say(penstock=1)
try:
    ask("/system_stats")
except OSError as error:
    sys.exit(f"ComfyUI does not answer at {URL}: {error}")
jobs, unwanted = queue.Queue(), set()
threading.Thread(target=listen, daemon=True).start()
say(ready=True)
while (job := jobs.get()) is not None:
    try:
        answer(job)
    except urllib.error.HTTPError as error:  # it says what is wrong with the workflow
        say(job=job["job"], error={"code": "failed", "message": f"ComfyUI: {error.code} {error.read().decode(errors='replace')[:1000]}"})
    except OSError as error:
        say(job=job["job"], error={"code": "failed", "message": f"ComfyUI: {error}", "retryable": True})
    except (KeyError, TypeError, ValueError) as error:
        say(job=job["job"], error={"code": "invalid_request", "message": f"{type(error).__name__}: {error}"})
