// The command usage: the ledger, as a table, CSV, JSON or CloudEvents.
//
// penstockd gives rows by the hour, page by page; what --by asks for is summed up here.
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/ctl/json.h"
#include "worker/ctl/operate.h"
#include "worker/ctl/table.h"
#include "worker/ctl/time_of.h"

namespace penstock::ctl {
namespace {

constexpr std::array<const char*, 9> kCounts = {
    "completed", "failed",        "cancelled",         "expired", "joined",
    "requests",  "prompt_tokens", "completion_tokens", "gpu_ms"};
constexpr std::array<const char*, 4> kKeys = {"time", "owner_hash", "queue", "model"};
// Of sums in memory.
constexpr size_t kMostRows = 1'000'000;

// When, whose, of which queue and model; empty where rows are summed over it.
using Key = std::array<std::string, kKeys.size()>;
using Counts = std::array<int64_t, kCounts.size()>;

struct By {
  bool told[kKeys.size()] = {true, true, true, true};
  const char* time_form = "%Y-%m-%dT%H:00:00Z";
};

// "day,owner" and the like; nothing: it is none.
std::optional<By> by_of(std::string_view text) {
  By by;
  if (text.empty()) {
    return by;
  }
  std::fill(std::begin(by.told), std::end(by.told), false);
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(','));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (word == "hour" || word == "day" || word == "month") {
      by.told[0] = true;
      by.time_form = word == "day" ? "%Y-%m-%d" : word == "month" ? "%Y-%m" : by.time_form;
    } else if (word == "owner") {
      by.told[1] = true;
    } else if (word == "queue") {
      by.told[2] = true;
    } else if (word == "model") {
      by.told[3] = true;
    } else {
      return std::nullopt;
    }
  }
  return by;
}

std::string text_of(JsonElement row, std::string_view member) {
  std::string_view text;
  return row[member].get_string().get(text) == simdjson::SUCCESS ? std::string(text)
                                                                 : std::string();
}

std::string time_text(int64_t seconds, const char* form) {
  const auto when = static_cast<time_t>(seconds);
  tm utc{};
  char text[40];
  ::gmtime_r(&when, &utc);
  return {text, ::strftime(text, sizeof text, form, &utc)};
}

struct Ledger {
  std::map<Key, Counts> rows;
  std::string name;  // of the ledger, so that rows of several are not taken for one
};

struct Asked {
  By by;
  int64_t since_s = 0;
  std::string until_s;
  bool only_over = false;  // hours that are over
};

// All pages, summed up.
Result<Ledger> read_ledger(Penstockd& penstockd, const Arguments& arguments, const Asked& asked) {
  simdjson::dom::parser parser;
  Ledger ledger;
  std::string after;
  for (bool more = true; more;) {
    const auto page =
        penstockd.ask("GET", "/usage",
                      query_of({{"owner", arguments.value("owner")},
                                {"owner_hash", arguments.value("owner-hash")},
                                {"model", arguments.value("model")},
                                {"since", std::to_string(std::max<int64_t>(asked.since_s, 0))},
                                {"until", asked.until_s},
                                {"after", after}}));
    JsonElement root;
    if (!page || !parse_object(parser, *page, root)) {
      return page ? Error{"penstockd's answer is no JSON object"} : page.error();
    }
    ledger.name = text_of(root, "ledger");
    const double open_since = number_of(root, "open_since");
    for (const JsonElement row : elements_of(root, "data")) {
      const double hour = number_of(row, "hour");
      if (asked.only_over && hour >= open_since) {
        continue;
      }
      const Key whole = {time_text(static_cast<int64_t>(hour), asked.by.time_form),
                         text_of(row, "owner_hash"), text_of(row, "queue"), text_of(row, "model")};
      Key key;
      for (size_t i = 0; i < key.size(); ++i) {
        key[i] = asked.by.told[i] ? whole[i] : std::string();
      }
      Counts& counts = ledger.rows[key];
      for (size_t i = 0; i < counts.size(); ++i) {
        counts[i] += static_cast<int64_t>(number_of(row, kCounts[i]));
      }
    }
    if (ledger.rows.size() > kMostRows) {
      return Error{
          "that is more than a million rows: ask for less by --since and --until, or sum "
          "them up by --by"};
    }
    more = truth_of(root, "has_more", false);
    after = text_of(root, "next");
  }
  return ledger;
}

// A field of RFC 4180. What a spreadsheet would take for a formula is text, by a ' before it.
std::string csv(std::string text) {
  if (!text.empty() && std::string_view("=+-@\t\r").find(text.front()) != std::string_view::npos) {
    text.insert(0, 1, '\'');
  }
  if (text.find_first_of(",\"\r\n") == std::string::npos) {
    return text;
  }
  std::string quoted = "\"";
  for (const char c : text) {
    quoted.append(c == '"' ? 2 : 1, c);
  }
  return quoted + "\"";
}

std::string as_csv(const Ledger& ledger, const By& by) {
  std::string out;
  const auto line = [&](const auto& key, const auto& counts) {
    std::string text;
    for (size_t i = 0; i < kKeys.size(); ++i) {
      if (by.told[i]) {
        text.append(text.empty() ? "" : ",").append(csv(key[i]));
        text = text.empty() ? "\"\"" : text;
      }
    }
    for (const auto& count : counts) {
      text.append(",").append(count);
    }
    out.append(text).append("\r\n");
  };
  line(kKeys, kCounts);
  for (const auto& [key, counts] : ledger.rows) {
    std::array<std::string, kCounts.size()> numbers;
    std::transform(counts.begin(), counts.end(), numbers.begin(),
                   [](int64_t count) { return std::to_string(count); });
    line(key, numbers);
  }
  return out;
}

// {"time":…,"owner_hash":null,…,"completed":1,…}
std::string row_json(const Key& key, const Counts& counts, const By& by) {
  std::string out;
  for (size_t i = 0; i < key.size(); ++i) {
    if (by.told[i]) {
      out += fmt::format("{}\"{}\":{}", out.empty() ? "" : ",", kKeys[i],
                         key[i].empty() ? "null" : json_text(key[i]));
    }
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    out += fmt::format("{}\"{}\":{}", out.empty() ? "" : ",", kCounts[i], counts[i]);
  }
  return "{" + out + "}";
}

std::string as_json(const Ledger& ledger, const By& by) {
  std::string out;
  for (const auto& [key, counts] : ledger.rows) {
    out.append(out.empty() ? "" : ",\n").append(row_json(key, counts, by));
  }
  return R"({"object":"list","ledger":)" + json_text(ledger.name) + ",\"data\":[" + out + "]}\n";
}

// A batch as of the JSON format of CloudEvents 1.0, section 4. Of one hour, owner, queue and model
// there is one event, whose id and source never change.
std::string as_events(const Ledger& ledger, const By& by) {
  std::string out;
  for (const auto& [key, counts] : ledger.rows) {
    const auto& [hour, owner, queue, model] = key;
    out += fmt::format(
        R"({}{{"specversion":"1.0","id":{},"source":{},"type":"penstock.usage.hour","subject":{},)"
        R"("time":{},"datacontenttype":"application/json","data":{}}})",
        out.empty() ? "" : ",\n", json_text(hour + "/" + owner + "/" + queue + "/" + model),
        json_text("/penstock/ledgers/" + ledger.name), json_text(owner.empty() ? "nobody" : owner),
        json_text(hour), row_json(key, counts, by));
  }
  return "[" + out + "]\n";
}

std::string as_table(const Ledger& ledger, const By& by) {
  std::vector<Row> rows;
  const auto add = [&](const auto& key, auto&& counts) {
    Row row;
    for (size_t i = 0; i < kKeys.size(); ++i) {
      if (by.told[i]) {
        row.push_back(std::string_view(key[i]).empty() ? "-" : printable(key[i]));
      }
    }
    row.insert(row.end(), counts.begin(), counts.end());
    rows.push_back(std::move(row));
  };
  add(kKeys, kCounts);
  for (const auto& [key, counts] : ledger.rows) {
    std::vector<std::string> numbers;
    for (const int64_t count : counts) {
      numbers.push_back(std::to_string(count));
    }
    add(key, numbers);
  }
  return rows.size() == 1 ? "nothing was used\n" : render(rows);
}

}  // namespace

Outcome run_usage(const Arguments& arguments) {
  if (!arguments.words().empty()) {
    return misused("usage takes no '" + arguments.words()[0] + "'; --owner NAME is whose");
  }
  const bool events = arguments.has("cloudevents");
  if (arguments.has("csv") + arguments.has("json") + events > 1) {
    return misused("give one of --csv, --json and --cloudevents");
  }
  if (arguments.has("owner") && arguments.has("owner-hash")) {
    return misused("give --owner or --owner-hash, not both");
  }
  Asked asked{.only_over = events};
  const auto by = by_of(arguments.value("by"));
  if (!by || (events && arguments.has("by"))) {
    return misused(by ? "--cloudevents has an event for each row as it is, without --by"
                      : "--by is one or more of hour, day, month, owner, queue and model, with "
                        "commas; of the first three one");
  }
  asked.by = *by;
  const int64_t now_s = std::time(nullptr);
  const auto since = time_of(arguments.value("since", "0"), now_s);
  const auto until = time_of(arguments.value("until", "0"), now_s);
  if (!since || !until) {
    return misused("--since and --until are times, as 2h (ago), 2026-11-30, 2026-11-30T08:00:00Z");
  }
  asked.since_s = *since;
  asked.until_s = arguments.has("until") ? std::to_string(std::max<int64_t>(*until, 0)) : "";
  return with_penstockd(arguments, [&](Penstockd& penstockd) {
    const auto ledger = read_ledger(penstockd, arguments, asked);
    if (!ledger) {
      return failed(ledger.error());
    }
    return Outcome{Outcome::kFine, events                  ? as_events(*ledger, asked.by)
                                   : arguments.has("json") ? as_json(*ledger, asked.by)
                                   : arguments.has("csv")  ? as_csv(*ledger, asked.by)
                                                           : as_table(*ledger, asked.by)};
  });
}

}  // namespace penstock::ctl
