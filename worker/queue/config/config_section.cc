#include "worker/queue/config/config_section.h"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

#include "shared/base/units.h"
#include "worker/queue/config/environment.h"

namespace penstock::queue {
namespace {

constexpr size_t kMaxShownBytes = 60;  // of what the user wrote, in a message
constexpr size_t kMaxNotedBytes =
    4096;  // of a value that is in force: an alias may repeat a long one

std::string shown(const std::string& text) {
  return "'" + (text.size() > kMaxShownBytes ? text.substr(0, kMaxShownBytes) + "..." : text) + "'";
}

// A word, or a list of words. Empty: of something else, whose own keys tell.
std::string written(const YAML::Node& value) {
  if (value.IsScalar()) {
    return value.Scalar();
  }
  if (!value.IsSequence()) {
    return "";
  }
  std::string list;
  for (const auto& item : value) {
    if (!item.IsScalar()) {
      return "";
    }
    list += (list.empty() ? "" : ", ") + item.Scalar();
    if (list.size() > kMaxNotedBytes) {
      break;
    }
  }
  return "[" + list + "]";
}

}  // namespace

void Complaints::add(int line, const std::string& key, const std::string& what) {
  const std::string subject = key.empty() ? "" : "key " + shown(key) + ": ";
  lines_.emplace(line, place_of(line) + ": " + subject + what);
  if (lines_.size() > kMax) {
    lines_.erase(std::prev(lines_.end()));
  }
}

std::string Complaints::place_of(int line) const {
  const auto& [first, file] = *std::prev(files_.upper_bound(std::max(1, line)));
  return fmt::format("{}:{}", file, line - first + 1);
}

std::string Complaints::twice(int first, int second) const {
  const std::string place = place_of(first);
  const bool same_file = files_.upper_bound(first) == files_.upper_bound(second);
  return same_file ? "comes twice; keep one" : "comes twice, in " + place + " as well; keep one";
}

std::string Complaints::text() const {
  std::string all;
  for (const auto& [line, text] : lines_) {
    all += (all.empty() ? "" : "\n") + text;
  }
  return all;
}

int line_of(const YAML::Node& node) {
  return node.IsDefined() ? std::max(0, node.Mark().line) + 1 : 1;
}

Section::Section(const YAML::Node& node, std::string path, Complaints& complaints)
    : path_(std::move(path)), line_(line_of(node)), complaints_(complaints) {
  if (!node.IsDefined() || node.IsNull()) {
    return;
  }
  if (!node.IsMap()) {
    complaints_.add(line_, path_, "must be a map of keys to values");
    return;
  }
  collect(node, 0);
}

// False: there are too many, which was complained about.
bool Section::count(int line) {
  if (++keys_ > kMaxKeys) {
    complaints_.add(line, path_,
                    fmt::format("has more than {} keys, with what it merges", kMaxKeys));
  }
  return keys_ <= kMaxKeys;
}

// `depth`: how often one map was merged into another to come here.
bool Section::collect(const YAML::Node& map, int depth) {
  std::map<std::string, int> own;  // and its line
  std::vector<std::pair<YAML::Node, int>> merges;
  for (const auto& entry : map) {
    const int line = line_of(entry.first);
    if (!count(line)) {
      return false;
    }
    if (!entry.first.IsScalar()) {
      complaints_.add(line, path_, "a key must be a plain word");
      continue;
    }
    const std::string& key = entry.first.Scalar();
    if (const auto [first, is_new] = own.emplace(key, line); !is_new) {
      complaints_.add(line, path_of(key), complaints_.twice(first->second, line));
    } else if (key == "<<") {
      merges.emplace_back(entry.second, line);
    } else if (entries_.emplace(key, Entry{entry.second, line}).second) {
      order_.push_back(key);
    }
  }
  return std::all_of(merges.begin(), merges.end(),
                     [&](const auto& each) { return merge(each.first, each.second, depth + 1); });
}

bool Section::merge(const YAML::Node& value, int line, int depth) {
  if (depth > kMaxMergeDepth) {
    complaints_.add(line, path_of("<<"), "merges maps that merge others, too often; or itself");
    return false;
  }
  std::vector<YAML::Node> maps;
  if (value.IsSequence()) {
    for (const auto& each : value) {
      maps.push_back(each);
    }
  } else {
    maps.push_back(value);
  }
  for (const YAML::Node& map : maps) {
    if (!map.IsMap()) {
      complaints_.add(line, path_of("<<"), "must be a map's alias, as *base, or a list of such");
    } else if (!count(line) || !collect(map, depth)) {
      return false;
    }
  }
  return true;
}

YAML::Node Section::take(const std::string& key) {
  known_.push_back(key);
  const auto it = entries_.find(key);
  if (it == entries_.end()) {
    return YAML::Node(YAML::NodeType::Undefined);
  }
  it->second.known = true;
  if (std::string text = written(it->second.value); !text.empty()) {
    note(key, std::move(text));
  }
  return it->second.value;
}

bool Section::given(const std::string& key) {
  known_.push_back(key);
  const auto it = entries_.find(key);
  if (it == entries_.end()) {
    return false;
  }
  it->second.known = true;
  return true;
}

void Section::note(const std::string& key, std::string value) {
  if (value.size() > kMaxNotedBytes) {
    value.replace(kMaxNotedBytes, value.npos, "...");
  }
  complaints_.settings().set(path_of(key), std::move(value), has(key));
}

void Section::note_hidden(const std::string& key, std::string shown, std::string value) {
  note(key, std::move(shown));
  complaints_.settings().note_hidden(path_of(key), std::move(value));
}

bool Section::scalar(const std::string& key, std::string& out) {
  const YAML::Node value = take(key);
  if (!value.IsDefined()) {
    return false;
  }
  if (!value.IsScalar() || value.Scalar().empty()) {
    complain(key, "needs a single value");
    return false;
  }
  out = value.Scalar();
  return true;
}

void Section::text(const std::string& key, std::string& out) {
  if (std::string value; scalar(key, value)) {
    if (value.find('\0') != std::string::npos) {
      complain(key, "must not contain a zero byte");
    } else if (auto filled = with_environment(value); !filled) {
      complain(key, filled.error().message);
    } else {
      out = *std::move(filled);
      note(key, out);
      if (out != value) {
        complaints_.settings().note_source(path_of(key), value);
      }
      return;
    }
  }
  note(key, out);
}

void Section::number(const std::string& key, uint32_t& out, uint32_t min, uint32_t max,
                     std::string_view also) {
  if (std::string text; scalar(key, text)) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
      complain(key, fmt::format("{} is not a whole number from {} to {}{}{}", shown(text), min, max,
                                also.empty() ? "" : ", nor ", also));
    } else {
      out = value;
    }
  }
  note(key, std::to_string(out));
}

void Section::fraction(const std::string& key, double& out, double min, double max) {
  if (std::string text; scalar(key, text)) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() ||
        !(value >= min && value <= max)) {
      complain(key, fmt::format("{} is not a number from {:g} to {:g}", shown(text), min, max));
    } else {
      out = value;
    }
  }
  note(key, fmt::format("{:g}", out));
}

void Section::boolean(const std::string& key, bool& out) {
  std::string word = out ? "true" : "false";
  choice(key, word, {"true", "false"});
  out = word == "true";
}

void Section::duration(const std::string& key, int64_t& out_ns, int64_t min_ns) {
  if (std::string text; scalar(key, text)) {
    const auto value = parse_duration_ns(text);
    if (!value) {
      complain(key, shown(text) +
                        " is not a duration; write a whole number and a unit, like 20ms, "
                        "2s, 10m or 24h");
    } else if (*value < min_ns) {
      complain(key, shown(text) + " is too short; the least is " + format_duration(min_ns));
    } else if (*value > kMaxDurationNs) {
      complain(key, shown(text) + " is too long; the most is " + format_duration(kMaxDurationNs));
    } else {
      out_ns = *value;
    }
  }
  note(key, format_duration(out_ns));
}

void Section::size(const std::string& key, int64_t& out_bytes, int64_t min_bytes,
                   int64_t max_bytes) {
  if (std::string text; scalar(key, text)) {
    const auto value = parse_size_bytes(text);
    if (!value) {
      complain(key, shown(text) +
                        " is not a size; write a whole number and a unit, like 512MiB or "
                        "2GiB");
    } else if (*value < min_bytes || *value > max_bytes) {
      complain(key, fmt::format("{} is out of range; from {} to {} bytes are possible", shown(text),
                                min_bytes, max_bytes));
    } else {
      out_bytes = *value;
    }
  }
  note(key, format_size(out_bytes));
}

void Section::choice(const std::string& key, std::string& out,
                     const std::vector<std::string>& choices, bool guess) {
  if (std::string text; scalar(key, text)) {
    if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
      std::string list;
      for (const std::string& each : choices) {
        list += (list.empty() ? "" : &each == &choices.back() ? " or " : ", ") + each;
      }
      complain(key, shown(text) + " is not known; write " + list +
                        (guess ? "; did you mean '" + nearest(text, choices) + "'?" : ""));
    } else {
      out = std::move(text);
    }
  }
  note(key, out);
}

void Section::complain(const std::string& key, const std::string& what) {
  if (silent_) {
    return;
  }
  const auto it = entries_.find(key);
  complaints_.add(it != entries_.end() ? it->second.line : line_, path_of(key), what);
}

void Section::done() {
  size_t unknown = 0;  // more are not shown, and not looked for
  for (const auto& [key, entry] : entries_) {
    if (!entry.known && ++unknown <= Complaints::kMax) {
      complain(key, "unknown key; did you mean '" + nearest(key, known_) + "'?");
    }
  }
}

}  // namespace penstock::queue
