#include "worker/ctl/cluster_table.h"

#include <cstdio>

#include "worker/ctl/json.h"
#include "worker/ctl/table.h"

namespace penstock::ctl {
namespace {

// 1500 is "1.5 s"; "-" where it is not known.
std::string milliseconds(JsonElement of, std::string_view member) {
  if (cell(of, member) == "-") {
    return "-";
  }
  char out[32];
  const double ms = number_of(of, member);
  snprintf(out, sizeof out, ms < 1000 ? "%.0f ms" : "%.1f s", ms < 1000 ? ms : ms / 1000);
  return out;
}

std::string seconds(JsonElement of, std::string_view member) {
  return duration(static_cast<int64_t>(number_of(of, member)));
}

// "2 of 3", of workers or slots.
std::string part(JsonElement of, std::string_view some, std::string_view all) {
  return cell(of, some) + " of " + cell(of, all);
}

std::string redis_line(JsonElement redis) {
  const std::string at = cell(redis, "at");
  if (truth_of(redis, "reached", false)) {
    return "Redis " + at + " is reached\n";
  }
  return "Redis" + (at.empty() || at == "-" ? "" : " " + at) +
         " is not reached: " + cell(redis, "why") + "\n";
}

// What a 202 says now.
std::string promise_lines(JsonElement root, JsonElement redis) {
  std::string lines;
  const auto promise = object_of(redis, "promise");
  if (!promise) {
    return lines;
  }
  if (!truth_of(redis, "reached", false)) {
    return "nothing is promised meanwhile\n";
  }
  for (const JsonElement server : elements_of(*promise, "servers")) {
    const std::string warning = cell(server, "warning");
    lines += "a 202 says: Redis at " + cell(server, "at") + " " +
             (warning == "-" ? "has the job on its disk (appendonly yes, appendfsync always)"
                             : warning) +
             "\n";
  }
  const std::string wanted = cell(*promise, "replicas");
  for (const JsonElement queue : elements_of(root, "queues")) {
    const auto replicas = object_of(queue, "acknowledged");
    if (!replicas) {
      continue;
    }
    lines += "a 202 of queue " + cell(queue, "name") + " says: " + wanted +
             " or more replicas have the job; ";
    lines += cell(*replicas, "ms") == "-"
                 ? "none was asked for yet"
                 : "the last was acknowledged by " + cell(*replicas, "replicas") + ", " +
                       milliseconds(*replicas, "ms") + " ago";
    if (number_of(*replicas, "failed") > 0) {
      const std::string with = cell(*replicas, "failed_with");
      lines += "; not given " + cell(*replicas, "failed") + " times, the last " +
               milliseconds(*replicas, "failed_ms") +
               " ago: " + (with == "-" ? "Redis did not answer" : with + " acknowledged it");
    }
    lines += "\n";
  }
  return lines;
}

// What waits where this host does not see it.
std::string layout_lines(JsonElement root) {
  std::string lines;
  for (const JsonElement queue : elements_of(root, "queues")) {
    for (const JsonElement layout : elements_of(queue, "other_layouts")) {
      std::string_view name;
      if (layout.get(name) == simdjson::SUCCESS) {
        lines += "queue " + cell(queue, "name") + ": another version has kept it by layout " +
                 printable(name) + " here; what waits there is for hosts of that version\n";
      }
    }
  }
  return lines;
}

std::string queue_table(JsonElement root) {
  std::vector<Row> rows = {{"QUEUE", "MODEL", "WAITING", "SCHEDULED", "RUNNING", "WORKERS", "SLOTS",
                            "WAIT", "TAKES", "OLDEST"}};
  for (const JsonElement queue : elements_of(root, "queues")) {
    const bool paused = truth_of(queue, "paused", false);
    rows.push_back({cell(queue, "name"), paused ? "all, paused" : "all", cell(queue, "waiting"),
                    cell(queue, "scheduled"), cell(queue, "running"), "-", "-", "-", "-",
                    seconds(queue, "oldest_seconds")});
    for (const JsonElement model : elements_of(queue, "models")) {
      rows.push_back({"", cell(model, "model"), cell(model, "waiting"), "-", cell(model, "running"),
                      part(model, "ready", "workers"), cell(model, "slots"),
                      milliseconds(model, "predicted_wait_ms"), milliseconds(model, "service_ms"),
                      "-"});
    }
  }
  return render(rows);
}

std::string host_table(JsonElement root) {
  std::vector<Row> rows = {{"HOST", "ROLE", "STATE", "VERSION", "UP", "HEARD", "QUEUE",
                            "LEASE ENDS", "RUNNING", "MODELS", "UNSENT"}};
  for (const JsonElement host : elements_of(root, "hosts")) {
    bool first = true;
    for (const JsonElement queue : elements_of(host, "queues")) {
      std::string models;
      for (const JsonElement model : elements_of(queue, "models")) {
        models += (models.empty() ? "" : ", ") + cell(model, "model") + " (" +
                  part(model, "running", "slots") + " slots, " + part(model, "ready", "workers") +
                  " workers)";
      }
      const auto once = [&](std::string text) { return first ? std::move(text) : std::string(); };
      rows.push_back({once(cell(host, "name")), once(cell(host, "role")), once(cell(host, "state")),
                      once(cell(host, "version")), once(seconds(host, "up_seconds")),
                      once(milliseconds(host, "heard_ms") + " ago"), cell(queue, "queue"),
                      milliseconds(queue, "lease_ms"), cell(queue, "running"),
                      models.empty() ? "-" : models, once(cell(host, "unsent"))});
      first = false;
    }
  }
  return render(rows);
}

std::string gone_table(JsonElement root) {
  std::vector<Row> rows = {{"GONE", "VERSION", "HOW", "WHEN"}};
  for (const JsonElement host : elements_of(root, "gone")) {
    rows.push_back({cell(host, "name"), cell(host, "version"), cell(host, "end"),
                    seconds(host, "seconds") + " ago"});
  }
  return rows.size() == 1 ? "" : "\n" + render(rows);
}

// What this host knows by its own line to Redis.
std::string lag_lines(JsonElement root) {
  std::string lines;
  for (const JsonElement queue : elements_of(root, "queues")) {
    lines += "queue " + cell(queue, "name") + ", from here: heard " +
             milliseconds(queue, "heard_ms") + " ago, lease renewed " +
             milliseconds(queue, "renewed_ms") + " ago, messages take " +
             milliseconds(queue, "lag_ms") + ", " + cell(queue, "unsent") + " ends unsent, " +
             cell(queue, "reaped") + " jobs of dead hosts put back\n";
  }
  return lines;
}

}  // namespace

Result<std::string> cluster_table(const std::string& json) {
  simdjson::dom::parser parser;
  JsonElement root;
  if (!parse_object(parser, json, root)) {
    return Error{"penstockd's answer is no JSON object"};
  }
  const auto redis = object_of(root, "redis");
  if (!redis) {
    return std::string("no queue of this host is shared\n");
  }
  return redis_line(*redis) + promise_lines(root, *redis) + layout_lines(root) + lag_lines(root) +
         "\n" + queue_table(root) + "\n" + host_table(root) + gone_table(root);
}

}  // namespace penstock::ctl
