// Section: one YAML map, read key by key, so that what is left over is an unknown key.
//
// Each reader function takes the key's value if it is there and right, notes a complaint if it is
// there and wrong, and remembers that the key is known either way. done() then complains about the
// keys nobody asked for, each with the nearest that somebody did.
//
// Keys that a map merges (`<<: *base`, or a list of these) count as if they stood there, unless the
// map has them itself.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/clock.h"
#include "shared/base/nearest.h"
#include "worker/queue/config/settings.h"

namespace penstock::queue {

// Complaints about a file, in the order of its lines, a bounded number of them; and what was read
// of it. Lines of a second file are counted on from the first (config_files.h).
class Complaints {
 public:
  static constexpr size_t kMax = 20;
  explicit Complaints(std::string file) { add_file(std::move(file), 1); }

  // What follows from this line on is another file's, from its first line on.
  void add_file(std::string file, int first_line) { files_[first_line] = std::move(file); }
  std::string place_of(int line) const;  // "FILE:LINE"
  // What is to be said of a key on the second of these lines; the first has it, too.
  std::string twice(int first, int second) const;

  void add(int line, const std::string& key, const std::string& what);
  bool empty() const { return lines_.empty(); }
  std::string text() const;  // "FILE:LINE: key 'KEY': WHAT", one a line
  Settings& settings() { return settings_; }

 private:
  std::map<int, std::string> files_;  // by their first lines
  std::multimap<int, std::string> lines_;
  Settings settings_;
};

int line_of(const YAML::Node& node);  // from 1

class Section {
 public:
  // The most keys of one map, with those that it merges: an alias costs a few bytes, and may bring
  // in many.
  static constexpr size_t kMaxKeys = 1000;
  static constexpr int kMaxMergeDepth = 16;  // of maps that merge others; a map may merge itself
  // 100 years: what is that far away is still a time.
  static constexpr int64_t kMaxDurationNs = int64_t{36'500} * 86'400 * kNsPerSec;

  // `path` is the section's own key, "workers[0]"; empty for the whole file. A node that is not
  // there is an empty map.
  Section(const YAML::Node& node, std::string path, Complaints& complaints);

  // The value of a key, or an undefined node. Every reader below goes through here.
  YAML::Node take(const std::string& key);
  bool has(const std::string& key) const { return entries_.contains(key); }
  // Calls each(key, value, line) for every key, in the file's order.
  template <typename F>
  void each(F&& each) const {
    for (const std::string& key : order_) {
      const Entry& entry = entries_.at(key);
      each(key, entry.value, entry.line);
    }
  }

  // Variables of the environment in it are put in (environment.h).
  void text(const std::string& key, std::string& out);
  // `also`: a word that may stand there as well; it was looked for before.
  void number(const std::string& key, uint32_t& out, uint32_t min, uint32_t max,
              std::string_view also = {});
  void fraction(const std::string& key, double& out, double min, double max);
  void boolean(const std::string& key, bool& out);
  void duration(const std::string& key, int64_t& out_ns, int64_t min_ns);
  void size(const std::string& key, int64_t& out_bytes, int64_t min_bytes, int64_t max_bytes);
  // `guess`: a complaint says which one may have been meant.
  void choice(const std::string& key, std::string& out, const std::vector<std::string>& choices,
              bool guess = false);

  // Whether the key is there; it is known either way. What is in force without it is then somebody
  // else's to say, an engine's.
  bool given(const std::string& key);
  // The scalar of a key; false when it is absent, or is no scalar (which is complained about).
  bool scalar(const std::string& key, std::string& out);
  // The value of a key that is in force; the readers above note theirs themselves.
  void note(const std::string& key, std::string value);
  // Likewise, of one that is not to be shown, as it may be secret: `shown` is.
  void note_hidden(const std::string& key, std::string shown, std::string value);
  // Complains about a key of this section, unless it is silent.
  void complain(const std::string& key, const std::string& what);
  std::string path_of(const std::string& key) const {
    return path_.empty() ? key : path_ + "." + key;
  }
  int line() const { return line_; }
  Complaints& complaints() { return complaints_; }

  // While keys are read for nothing but that they are known.
  void be_silent(bool silent) { silent_ = silent; }

  // Complains about the keys that were never asked for.
  void done();

 private:
  struct Entry {
    YAML::Node value;
    int line = 0;
    bool known = false;
  };
  bool collect(const YAML::Node& map, int depth);
  bool merge(const YAML::Node& value, int line, int depth);
  bool count(int line);

  std::string path_;
  int line_;
  Complaints& complaints_;
  std::map<std::string, Entry> entries_;
  std::vector<std::string> order_;
  size_t keys_ = 0;  // looked at
  bool silent_ = false;
  std::vector<std::string> known_;
};

}  // namespace penstock::queue
