// Settings: what a configuration comes to, key by key, as one would write it: with what the file
// leaves out, and without what is secret. For people, who ask what is in force and what a change of
// the file changes.
//
//     limits.max_held: 1GiB
//     workers.chat.slots: 8
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::queue {

class Settings {
 public:
  // A value that is in force; `given`: the file says it. Said again, the last counts.
  void set(const std::string& key, std::string value, bool given);
  // The value of that key, or a part of it, is not shown; whether it has changed is told all the
  // same.
  void note_hidden(const std::string& key, std::string value);
  // The value of that key came of this text of the file. Nothing happens if there is none.
  void note_source(const std::string& key, std::string text);
  // What begins with `key` goes by another name from here on.
  void rename(const std::string& key, const std::string& name);
  // These keys have the values that they have in `before`.
  void keep(std::initializer_list<const char*> keys, const Settings& before);
  // So have all that begin so: "redis.".
  void keep_below(std::string_view prefix, const Settings& before);

  // One line a key: "KEY: VALUE", and behind what the file leaves out "  # not written", behind
  // what the environment is in how it is written: "  # ${NAME}".
  std::string text() const;
  // What is different from `before`, one line a key: "limits.max_held: 2GiB (was 1GiB)". Keys that
  // only one of both has are told if its file says them.
  std::vector<std::string> changes_since(const Settings& before) const;

 private:
  struct Value {
    std::string text;
    bool given = false;
    std::string hidden;  // what is not shown of it
    std::string source;  // empty: the text itself
  };
  std::map<std::string, Value> values_;
};

}  // namespace penstock::queue
