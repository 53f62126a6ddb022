#include "worker/ctl/status_table.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace penstock::ctl {
namespace {

using Row = std::vector<std::string>;

std::string text(const YAML::Node& object, const char* member) {
  const YAML::Node value = object[member];
  return value.IsDefined() && value.IsScalar() && !value.IsNull() ? value.Scalar() : "-";
}

std::string number(const YAML::Node& object, const char* member) {
  return object[member].as<std::string>("-");
}

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

// Columns as wide as their widest cell, two spaces between.
std::string render(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows.front().size());
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

std::string queue_table(const YAML::Node& queues) {
  std::vector<Row> rows = {
      {"QUEUE", "STATE", "WAITING", "OF", "RUNNING", "SLOTS", "WAIT", "TAKES"}};
  for (const YAML::Node& queue : queues) {
    rows.push_back({text(queue, "name"), text(queue, "state"), number(queue, "waiting"),
                    number(queue, "max_length"), number(queue, "running"), number(queue, "slots"),
                    milliseconds(queue["predicted_wait_ms"].as<double>(0)),
                    milliseconds(queue["service_time_us"].as<double>(0) / 1000)});
  }
  return render(rows);
}

std::string worker_table(const YAML::Node& workers) {
  std::vector<Row> rows = {{"WORKER", "STATE", "QUEUE", "MODEL", "ENGINE", "DEVICE", "PID",
                            "RUNNING", "SLOTS", "RESTARTS", "LAST ERROR"}};
  for (const YAML::Node& worker : workers) {
    rows.push_back({text(worker, "name"), text(worker, "state"), text(worker, "queue"),
                    text(worker, "model"), text(worker, "engine"), text(worker, "device"),
                    number(worker, "pid"), number(worker, "running"), number(worker, "slots"),
                    number(worker, "restarts"), text(worker, "last_error")});
  }
  return render(rows);
}

std::string counter_line(const YAML::Node& counters) {
  std::string line;
  for (const auto& counter : counters) {
    line += (line.empty() ? "" : ", ") + counter.second.as<std::string>("-") + " " +
            counter.first.as<std::string>("");
  }
  std::replace(line.begin(), line.end(), '_', ' ');
  return line + "\n";
}

}  // namespace

Result<std::string> status_table(const std::string& json) {
  try {  // JSON is YAML, and yaml-cpp is here already; it speaks by exceptions
    const YAML::Node root = YAML::Load(json);
    if (!root.IsMap()) {
      return Error{"penstockd's answer is not an object"};
    }
    return "penstockd is " + text(root, "status") + ", process " + number(root, "pid") + ", up " +
           number(root, "uptime_seconds") + " s, " + number(root, "connections") +
           " connections\n\n" + queue_table(root["queues"]) + "\n" + worker_table(root["workers"]) +
           "\n" + counter_line(root["counters"]);
  } catch (const YAML::Exception& exception) {
    return Error{std::string("penstockd's answer cannot be read: ") + exception.what()};
  }
}

}  // namespace penstock::ctl
