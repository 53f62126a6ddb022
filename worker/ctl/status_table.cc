#include "worker/ctl/status_table.h"

#include <algorithm>
#include <cstdio>

#include "worker/ctl/json.h"
#include "worker/ctl/table.h"

namespace penstock::ctl {
namespace {

// 1500 is "1.5 s", 20.4 is "20 ms".
std::string milliseconds(double ms) {
  char out[32];
  if (ms >= 1000) {
    snprintf(out, sizeof out, "%.1f s", ms / 1000);
  } else {
    snprintf(out, sizeof out, ms < 10 ? "%.1f ms" : "%.0f ms", ms);
  }
  return out;
}

std::string queue_table(JsonElement root) {
  std::vector<Row> rows = {
      {"QUEUE", "STATE", "WAITING", "OF", "RUNNING", "SLOTS", "WAIT", "TAKES"}};
  for (const JsonElement queue : elements_of(root, "queues")) {
    const bool paused = truth_of(queue, "paused", false);
    rows.push_back({cell(queue, "name"), cell(queue, "state") + (paused ? ", paused" : ""),
                    cell(queue, "waiting"), cell(queue, "max_length"), cell(queue, "running"),
                    cell(queue, "slots"),
                    paused ? "-" : milliseconds(number_of(queue, "predicted_wait_ms")),
                    milliseconds(number_of(queue, "service_time_us") / 1000)});
  }
  return render(rows);
}

// How each model is asked in messages, or why it is not: once, however many workers have it.
std::string chat_lines(JsonElement root) {
  std::string lines;
  for (const JsonElement worker : elements_of(root, "workers")) {
    const std::string chat = cell(worker, "chat");
    const std::string line = cell(worker, "model") + ": " + chat + "\n";
    if (chat != "-" && lines.find(line) == lines.npos) {
      lines += line;
    }
  }
  return lines;
}

// What a server that jobs run on says of itself: "chat at http://...: 5 run and 2 wait there".
std::string server_lines(JsonElement root) {
  std::string lines;
  for (const JsonElement worker : elements_of(root, "workers")) {
    const double running = number_of(worker, "server_running");
    const double waiting = number_of(worker, "server_waiting");
    if (running + waiting > 0) {
      lines += cell(worker, "name") + " at " + cell(worker, "device") + ": " +
               cell(worker, "server_running") + " run and " + cell(worker, "server_waiting") +
               " wait there\n";
    }
  }
  return lines;
}

constexpr size_t kMostState = 60;  // a column of more pushes the others out of sight

// "ready for 41 s", "waiting: for memory on device 0", "ready for 2 h 3 min, 0 of its slots open:
// connection refused"
std::string worker_state(JsonElement worker) {
  const std::string waits_for = cell(worker, "waits_for");
  const std::string open = cell(worker, "open_slots");
  const double ready_s = number_of(worker, "ready_seconds", -1);
  return cell(worker, "state") +
         (ready_s < 0 ? "" : " for " + duration(static_cast<int64_t>(ready_s))) +
         (waits_for == "-" ? "" : ": " + waits_for) +
         (open == "-" ? "" : ", " + open + " of its slots open: " + cell(worker, "why_closed"));
}

// The states that the column has no room for.
std::string state_lines(JsonElement root) {
  std::string lines;
  for (const JsonElement worker : elements_of(root, "workers")) {
    const std::string name = cell(worker, "name");
    const std::string state = worker_state(worker);
    if (shortened(state, kMostState) != state) {
      lines += name + " is " + state + "\n";
    }
  }
  return lines;
}

std::string worker_table(JsonElement root) {
  std::vector<Row> rows = {{"WORKER", "STATE", "QUEUE", "MODEL", "ENGINE", "DEVICE", "PID",
                            "RUNNING", "SLOTS", "RESTARTS", "LAST ERROR"}};
  for (const JsonElement worker : elements_of(root, "workers")) {
    rows.push_back({cell(worker, "name"), shortened(worker_state(worker), kMostState),
                    cell(worker, "queue"), cell(worker, "model"), cell(worker, "engine"),
                    cell(worker, "device"), cell(worker, "pid"), cell(worker, "running"),
                    cell(worker, "slots"), cell(worker, "restarts"),
                    cell(worker, "state") == "ready" ? "-" : cell(worker, "last_error")});
  }
  return render(rows) + state_lines(root) + chat_lines(root) + server_lines(root);
}

// "61 °C", or "-" when the device does not tell.
std::string figure(JsonElement device, std::string_view member, double unit, const char* format) {
  if (cell(device, member) == "-") {
    return "-";
  }
  char out[32];
  snprintf(out, sizeof out, format, number_of(device, member) / unit);
  return out;
}

std::string memory(JsonElement device) {
  constexpr double kGiB = 1 << 30;
  const std::string used = figure(device, "memory_used_bytes", kGiB, "%.1f of ");
  return used == "-" ? used : used + figure(device, "memory_total_bytes", kGiB, "%.1f GiB");
}

// Where no device is looked for: nothing. Where there is none: why.
std::string device_table(JsonElement root) {
  const auto devices = elements_of(root, "devices");
  const auto watch = object_of(root, "device_watch");
  const std::string trouble = watch ? cell(*watch, "message") : "-";
  const std::string why = trouble == "-" ? "" : "devices: " + trouble + "\n";
  if (devices.empty()) {
    return why.empty() ? "" : why + "\n";
  }
  std::vector<Row> rows = {{"DEVICE", "NAME", "HEALTH", "USE", "MEMORY", "TEMP", "POWER", "UUID"}};
  for (const JsonElement device : devices) {
    const std::string message = cell(device, "message");
    rows.push_back({cell(device, "device"), cell(device, "name"),
                    cell(device, "health") + (message == "-" ? "" : ": " + message),
                    figure(device, "utilization_percent", 1, "%.0f %%"), memory(device),
                    figure(device, "temperature_celsius", 1, "%.0f °C"),
                    figure(device, "power_mw", 1000, "%.0f W"), cell(device, "uuid")});
  }
  return render(rows) + why + "\n";
}

// What runs on each device and what bounds it; where workers choose their slots, why so many. A
// worker that shares its device with nobody, and whose slots are as written, has no line.
std::string bound_table(JsonElement root) {
  constexpr double kGiB = 1 << 30;
  const auto holds = [](JsonElement of) {
    const std::string most = figure(of, "memory_bytes", kGiB, " of %.1f GiB");
    return most == " of 0.0 GiB" ? std::string("-") : figure(of, "held_bytes", kGiB, "%.1f") + most;
  };
  std::vector<Row> rows = {{"ON DEVICE", "WORKER", "STATE", "RUNNING", "SLOTS", "HOLDS", "WHY"}};
  for (const JsonElement device : elements_of(root, "bounds")) {
    const std::string name = cell(device, "device");
    const std::string state = cell(device, "state");
    const bool alone = name.find(" of ") != std::string::npos;
    if (!alone || state != "good") {
      rows.push_back({name, "all", state, cell(device, "busy"), cell(device, "slots"),
                      holds(device), state == "good" ? "-" : cell(device, "last_fault")});
    }
    for (const JsonElement worker : elements_of(device, "workers")) {
      const std::string why = cell(worker, "why");
      if (!alone || why != "-") {
        rows.push_back({name, cell(worker, "worker"), "-", cell(worker, "busy"),
                        cell(worker, "slots"), holds(worker), why});
      }
    }
  }
  return rows.size() == 1 ? "" : render(rows) + "\n";
}

std::string counter_line(JsonElement root) {
  std::string line;
  JsonElement counters;
  simdjson::dom::object object;
  if (root.at_key("counters").get(counters) != simdjson::SUCCESS ||
      counters.get(object) != simdjson::SUCCESS) {
    return line;
  }
  for (const auto [name, value] : object) {
    line += (line.empty() ? "" : ", ") + cell(counters, name) + " " + printable(name);
  }
  std::replace(line.begin(), line.end(), '_', ' ');
  return line + "\n";
}

// Nothing is kept on disk: no line.
std::string state_line(JsonElement root) {
  constexpr double kMiB = 1 << 20;
  const auto state = object_of(root, "state");
  if (!state) {
    return "";
  }
  char line[96];
  snprintf(line, sizeof line, " dead letters, %.1f of %.0f MiB on disk",
           number_of(*state, "bytes") / kMiB, number_of(*state, "max_bytes") / kMiB);
  const std::string error = cell(*state, "error");
  return cell(*state, "dead_letters") + line + (error == "-" ? "" : ", " + error) + "\n";
}

}  // namespace

Result<std::string> status_table(const std::string& json) {
  simdjson::dom::parser parser;
  JsonElement root;
  if (!parse_object(parser, json, root)) {
    return Error{"penstockd's answer is no JSON object"};
  }
  return "penstockd is " + cell(root, "status") + ", version " + cell(root, "version") +
         ", process " + cell(root, "pid") + ", up " + cell(root, "uptime_seconds") + " s, " +
         cell(root, "connections") + " connections\n\n" + queue_table(root) + "\n" +
         worker_table(root) + "\n" + device_table(root) + bound_table(root) + counter_line(root) +
         state_line(root);
}

}  // namespace penstock::ctl
