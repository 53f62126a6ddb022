#include "worker/ctl/job_table.h"

#include <algorithm>

#include "shared/base/utc.h"
#include "worker/ctl/json.h"
#include "worker/ctl/table.h"

namespace penstock::ctl {
namespace {

constexpr size_t kOwnerDigits = 8;
constexpr size_t kErrorBytes = 60;

const Error kNoList{"penstockd's answer is no list; is it of the same version as penstockctl?"};

std::string seconds_cell(JsonElement job, std::string_view member) {
  return cell(job, member) == "-" ? "-" : duration(static_cast<int64_t>(number_of(job, member)));
}

std::string age(JsonElement job, std::string_view since, int64_t now_s) {
  const auto then_s = static_cast<int64_t>(number_of(job, since, -1));
  return then_s < 0 ? "-" : duration(std::max<int64_t>(now_s - then_s, 0));
}

std::string time_cell(JsonElement job, std::string_view member) {
  return cell(job, member) == "-"
             ? "-"
             : utc_text(static_cast<int64_t>(number_of(job, member)), "%Y-%m-%d %H:%M:%S UTC");
}

std::string progress_cell(JsonElement job) {
  const auto progress = object_of(job, "progress");
  if (!progress) {
    return "-";
  }
  const auto percent = static_cast<int64_t>(number_of(*progress, "fraction") * 100);
  const std::string steps = cell(*progress, "step");
  return std::to_string(percent) + "%" +
         (steps == "-" ? "" : " (" + steps + " of " + cell(*progress, "steps") + ")");
}

std::string error_cell(JsonElement job) {
  const auto error = object_of(job, "error");
  return error ? cell(*error, "message") : "-";
}

// Cut at `bytes`, before a character that would be broken.
std::string shortened(std::string text, size_t bytes) {
  if (text.size() <= bytes) {
    return text;
  }
  while (bytes > 0 && (static_cast<uint8_t>(text[bytes]) & 0xC0) == 0x80) {
    --bytes;
  }
  return text.substr(0, bytes) + "...";
}

// `row_of` each job under `headings`; `nothing` when there are none.
template <typename RowOf>
Result<std::string> table_of(const std::string& json, Row headings, const char* nothing,
                             RowOf&& row_of) {
  simdjson::dom::parser parser;
  JsonElement root;
  simdjson::dom::array data;
  if (!parse_object(parser, json, root) || root.at_key("data").get(data) != simdjson::SUCCESS) {
    return kNoList;
  }
  std::vector<Row> rows = {std::move(headings)};
  for (const JsonElement job : data) {
    rows.push_back(row_of(job));
  }
  std::string text = rows.size() > 1 ? render(rows) : nothing;
  if (truth_of(root, "has_more", false)) {
    text += "\nThere are more: --after " + cell(root, "last_id") + "\n";
  }
  return text;
}

}  // namespace

Result<std::string> jobs_table(const std::string& json, int64_t now_s) {
  return table_of(json,
                  {"JOB", "STATUS", "QUEUE", "MODEL", "TIER", "PLACE", "ETA", "PROGRESS", "TRIES",
                   "AGE", "OWNER"},
                  "there are no such jobs\n", [&](JsonElement job) {
                    return Row{cell(job, "id"),
                               cell(job, "status"),
                               cell(job, "queue"),
                               cell(job, "model"),
                               cell(job, "tier"),
                               cell(job, "position"),
                               seconds_cell(job, "eta_seconds"),
                               progress_cell(job),
                               cell(job, "attempts"),
                               age(job, "created_at", now_s),
                               cell(job, "owner").substr(0, kOwnerDigits)};
                  });
}

Result<std::string> dead_table(const std::string& json, int64_t now_s) {
  return table_of(json, {"JOB", "QUEUE", "MODEL", "TRIES", "DIED", "OWNER", "ERROR"},
                  "there are no dead letters\n", [&](JsonElement job) {
                    return Row{cell(job, "id"),
                               cell(job, "queue"),
                               cell(job, "model"),
                               cell(job, "attempts"),
                               age(job, "finished_at", now_s) + " ago",
                               cell(job, "owner").substr(0, kOwnerDigits),
                               shortened(error_cell(job), kErrorBytes)};
                  });
}

Result<std::string> job_lines(const std::string& json) {
  simdjson::dom::parser parser;
  JsonElement job;
  if (!parse_object(parser, json, job)) {
    return Error{"penstockd's answer is no JSON object"};
  }
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    if (value != "-") {
      std::string label = name;
      label.resize(12, ' ');
      text += label + value + "\n";
    }
  };
  line("job", cell(job, "id"));
  line("status", cell(job, "status"));
  line("queue", cell(job, "queue"));
  line("model", cell(job, "model"));
  line("tier", cell(job, "tier"));
  line("priority", cell(job, "priority"));
  line("owner", cell(job, "owner"));
  line("place", cell(job, "position"));
  line("eta", seconds_cell(job, "eta_seconds"));
  line("progress", progress_cell(job));
  line("tries", cell(job, "attempts"));
  line("created", time_cell(job, "created_at"));
  line("not before", time_cell(job, "not_before"));
  line("started", time_cell(job, "started_at"));
  line("finished", time_cell(job, "finished_at"));
  line("result", cell(job, "result_url"));
  line("error", error_cell(job));
  if (const auto request = object_of(job, "request")) {
    line("request", cell(*request, "method") + " " + cell(*request, "path"));
    line("type", cell(*request, "content_type"));
    line("bytes", cell(*request, "body_bytes") +
                      (truth_of(*request, "truncated", false) ? ", of which the first are" : ""));
    const std::string body = cell(*request, "body");
    text += "\n" + (body != "-" ? body : cell(*request, "body_base64")) + "\n";
  }
  return text;
}

}  // namespace penstock::ctl
