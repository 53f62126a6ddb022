#include "worker/queue/config/config_files.h"

#include <fmt/format.h>
#include <glob.h>
#include <sys/stat.h>
#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "worker/queue/config/config.h"
#include "worker/queue/config/names.h"
#include "worker/queue/config/yaml_faults.h"

namespace penstock::queue {
namespace {

// One document of a YAML stream: where it begins, and whether it holds anything.
class Document final : public YAML::EventHandler {
 public:
  int start() const { return start_; }
  // Of what it holds, from 1; 0: it is empty.
  int line() const { return line_; }

 private:
  void OnDocumentStart(const YAML::Mark& mark) override { start_ = mark.pos; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { note(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                const std::string&) override {
    note(mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    note(mark);
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    note(mark);
  }
  void OnMapEnd() override {}
  void note(const YAML::Mark& mark) { line_ = line_ == 0 ? mark.line + 1 : line_; }

  int start_ = -1;
  int line_ = 0;
};

// yaml-cpp takes a ',' or '}' that nothing opened for the end of an empty document, again and again
// (so YAML::LoadAll() would never return).
void check_documents(const std::string& text, Complaints& complaints) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  int last = -1;
  for (bool first = true;; first = false) {
    Document document;
    if (!parser.HandleNextDocument(document)) {
      return;
    }
    if (document.start() == last) {
      const auto line = std::count(text.begin(), text.begin() + last, '\n');
      return complaints.add(static_cast<int>(line) + 1, "", "not YAML: nothing begins like this");
    }
    last = document.start();
    if (!first && document.line() != 0) {
      return complaints.add(document.line(), "",
                            "a second YAML document (---) begins; a configuration is one");
    }
  }
}

Result<std::string> read_text(const std::string& path) {
  struct stat status {};
  std::ifstream file(path, std::ios::binary);
  if (!file || ::stat(path.c_str(), &status) != 0) {
    return Error{path + ": cannot be read: " + std::strerror(errno)};
  }
  if (S_ISDIR(status.st_mode)) {
    return Error{path + ": is a folder; name the files in it, like " + path + "/*.yaml"};
  }
  std::string text(kMaxConfigBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

// What `include` says, and its line; nothing: the file includes none.
std::vector<std::string> patterns_of(const YAML::Node& include) {
  std::vector<std::string> patterns;
  if (include.IsScalar()) {
    patterns.push_back(include.Scalar());
  } else if (include.IsSequence()) {
    for (const auto& item : include) {
      patterns.push_back(item.IsScalar() ? item.Scalar() : "");
    }
  } else if (include.IsMap()) {
    patterns.emplace_back();  // which is none
  }
  return patterns;
}

Result<std::vector<std::string>> matches_of(const std::string& pattern) {
  glob_t found{};
  const int failed = ::glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<std::string> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  if (failed != 0 && failed != GLOB_NOMATCH) {
    return Error{pattern + " cannot be looked for"};
  }
  if (paths.empty() && pattern.find_first_of("*?[") == pattern.npos) {
    return Error{"there is no file " + pattern};
  }
  return paths;
}

Status add_included(const std::string& pattern, std::vector<ConfigFile>& files) {
  if (pattern.empty()) {
    return Error{"must be a path, which may have * in it, or a list of these: conf.d/*.yaml"};
  }
  const auto paths = matches_of(relative_to(files.front().path, pattern));
  if (!paths) {
    return paths.error();
  }
  size_t bytes = 0;
  for (const ConfigFile& each : files) {
    bytes += each.text.size();
  }
  for (const std::string& path : *paths) {
    if (std::any_of(files.begin(), files.end(),
                    [&](const ConfigFile& each) { return each.path == path; })) {
      return Error{"names " + path + " twice"};
    }
    auto text = read_text(path);
    if (!text) {
      return text.error();
    }
    bytes += text->size();
    if (bytes > kMaxConfigBytes || files.size() == kMaxConfigFiles) {
      return Error{
          fmt::format("{} is too much: all files together have at most {} bytes, and are "
                      "at most {}",
                      path, kMaxConfigBytes, kMaxConfigFiles)};
    }
    files.push_back({path, *std::move(text)});
  }
  return Ok{};
}

// A key of the whole, and what each file that has it says.
struct Said {
  std::vector<YAML::Node> keys;
  std::vector<YAML::Node> values;
  std::vector<size_t> files;

  // Whether it is one map, or one list, of several files.
  bool can_be_joined() const {
    const auto all = [this](auto&& is) { return std::all_of(values.begin(), values.end(), is); };
    return values.size() > 1 && std::adjacent_find(files.begin(), files.end()) == files.end() &&
           (all([](const YAML::Node& each) { return each.IsMap(); }) ||
            all([](const YAML::Node& each) { return each.IsSequence(); }));
  }
  // What cannot be joined stays there twice, for the reader of the map to complain about.
  void put_into(YAML::Node& root) const {
    if (!can_be_joined()) {
      for (size_t i = 0; i < values.size(); ++i) {
        root.force_insert(keys[i], values[i]);
      }
      return;
    }
    YAML::Node joined;  // a new one, as another alias may stand for a part
    for (const YAML::Node& value : values) {
      for (const auto& each : value) {
        value.IsMap() ? joined.force_insert(each.first, each.second) : joined.push_back(each);
      }
    }
    root.force_insert(keys.front(), joined);
  }
};

}  // namespace

Error too_large(const std::string& path, size_t bytes) {
  return Error{fmt::format("{}: the file has {} bytes; a configuration has at most {}", path, bytes,
                           kMaxConfigBytes)};
}

Result<std::vector<ConfigFile>> read_config_files(const std::string& path) {
  auto text = read_text(path);
  if (!text) {
    return text.error();
  }
  if (text->size() > kMaxConfigBytes) {
    return too_large(path, text->size());
  }
  std::vector<ConfigFile> files = {{path, *std::move(text)}};
  YAML::Node root;
  try {
    root = YAML::Load(files.front().text);
  } catch (const YAML::Exception&) {
    return files;  // join() says what is wrong with it
  }
  const YAML::Node include = root.IsMap() ? root["include"] : YAML::Node();
  for (const std::string& pattern : patterns_of(include)) {
    if (Status added = add_included(pattern, files); !added) {
      Complaints complaints(path);
      complaints.add(line_of(include), "include", added.error().message);
      return Error{complaints.text()};
    }
  }
  return files;
}

YAML::Node join(const std::vector<ConfigFile>& files, Complaints& complaints) {
  std::vector<YAML::Node> trees;
  std::string before;  // as many lines as all files before
  for (const ConfigFile& file : files) {
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
    const bool marked = !trees.empty() && file.text.starts_with(kByteOrderMark);
    const std::string text = before + file.text.substr(marked ? kByteOrderMark.size() : 0);
    complaints.add_file(file.path, static_cast<int>(before.size()) + 1);
    try {
      check_documents(text, complaints);
      trees.push_back(YAML::Load(text));
    } catch (const YAML::Exception& exception) {
      YAML::Mark mark = exception.mark;
      const auto first = static_cast<int>(before.size());  // lines of other files
      const YamlFault fault =
          explain(file.text, {std::max(0, mark.line) + 1 - first, exception.msg});
      mark.line = fault.line + first - 1;
      throw YAML::ParserException(mark, fault.what);
    }
    before.append(static_cast<size_t>(std::count(file.text.begin(), file.text.end(), '\n')) + 1,
                  '\n');
  }
  if (trees.size() == 1) {
    return trees.front();
  }
  std::vector<Said> all;
  for (size_t i = 0; i < trees.size(); ++i) {
    if (!trees[i].IsMap() && !trees[i].IsNull()) {
      complaints.add(line_of(trees[i]), "", "must be a map of keys to values");
      continue;
    }
    for (const auto& entry : trees[i]) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
      if (i > 0 && key == "include") {
        complaints.add(line_of(entry.first), key,
                       "is for " + files.front().path + "; what it includes includes no more");
        continue;
      }
      if (i > 0 && entry.second.IsNull()) {
        continue;
      }
      auto same = std::find_if(all.begin(), all.end(), [&](const Said& each) {
        return each.keys.front().IsScalar() && each.keys.front().Scalar() == key &&
               !each.values.front().IsNull();
      });
      Said& said = same != all.end() ? *same : all.emplace_back();
      said.keys.push_back(entry.first);
      said.values.push_back(entry.second);
      said.files.push_back(i);
    }
  }
  YAML::Node root(YAML::NodeType::Map);
  for (const Said& each : all) {
    each.put_into(root);
  }
  return root;
}

}  // namespace penstock::queue
