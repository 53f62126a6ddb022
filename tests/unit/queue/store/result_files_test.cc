#include "worker/queue/store/result_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "fault_files.h"

namespace penstock::queue {
namespace {

using Call = FaultFiles::Call;

class ResultFilesTest : public testing::Test {
 protected:
  ~ResultFilesTest() override { std::filesystem::remove_all(folder_); }
  static std::string make_folder() {
    std::string name = std::filesystem::temp_directory_path() / "results.XXXXXX";
    return ::mkdtemp(name.data());
  }
  std::string content() const {
    std::ostringstream bytes;
    bytes << std::ifstream(files_.path(id_), std::ios::binary).rdbuf();
    return bytes.str();
  }
  ino_t inode() const {
    struct stat status {};
    EXPECT_EQ(::stat(files_.path(id_).c_str(), &status), 0);
    return status.st_ino;
  }

  const std::string folder_ = make_folder();
  const JobId id_ = JobIdMaker().make(1'763'780'000'000);
  FaultFiles calls_;
  ResultFiles files_ = *ResultFiles::open(folder_, static_cast<gid_t>(-1), calls_);
};

TEST_F(ResultFilesTest, AFileWhoseFlushFailedIsCopiedToAnother) {
  ASSERT_TRUE(files_.write(id_, 0, "begun by one attempt, "));
  ASSERT_TRUE(files_.write(id_, 22, "ended"));
  const ino_t before = inode();
  calls_.fail(Call::kFlush, EIO, 1);
  EXPECT_TRUE(files_.seal(id_, 27));
  EXPECT_NE(inode(), before) << "what the flush has dropped of it is not told by another flush";
  EXPECT_EQ(content(), "begun by one attempt, ended");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(ResultFilesTest, IfTheCopyFailsTooItIsCopiedTheNextTime) {
  ASSERT_TRUE(files_.write(id_, 0, "all"));
  const ino_t before = inode();
  calls_.fail(Call::kFlush, EIO, 2);
  const Status sealed = files_.seal(id_, 3);
  ASSERT_FALSE(sealed);
  EXPECT_EQ(sealed.error().kind, ErrorKind::kIo);
  EXPECT_NE(sealed.error().message.find("flushing failed"), std::string::npos);
  EXPECT_TRUE(files_.seal(id_, 3));
  EXPECT_NE(inode(), before);
  EXPECT_EQ(content(), "all");
  const ino_t copied = inode();
  EXPECT_TRUE(files_.seal(id_, 3));
  EXPECT_EQ(inode(), copied) << "once is enough";
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(ResultFilesTest, AFileThatIsGoneIsNotMadeAnewInTheMiddle) {
  ASSERT_TRUE(files_.write(id_, 0, "begun"));
  std::filesystem::remove(files_.path(id_));
  EXPECT_EQ(files_.write(id_, 5, "ended").error().kind, ErrorKind::kGone);
  EXPECT_FALSE(std::filesystem::exists(files_.path(id_)));
}

TEST_F(ResultFilesTest, AFileThatWasCutOffIsNotMadeUpByZeros) {
  ASSERT_TRUE(files_.write(id_, 0, "begun"));
  std::filesystem::resize_file(files_.path(id_), 2);
  EXPECT_EQ(files_.write(id_, 5, "ended").error().kind, ErrorKind::kGone);
  EXPECT_EQ(content(), "be");
}

TEST_F(ResultFilesTest, AFullDiskIsNoFaultOfTheFile) {
  calls_.fail(Call::kWrite, ENOSPC);
  EXPECT_EQ(files_.write(id_, 0, "begun").error().kind, ErrorKind::kNoSpace);
}

TEST_F(ResultFilesTest, ARoundKeepsWhatIsWantedSomeAtATime) {
  JobIdMaker ids;
  std::vector<JobId> made;
  for (int i = 0; i < 5; ++i) {
    made.push_back(ids.make(1'763'780'000'000));
    ASSERT_TRUE(files_.write(made.back(), 0, "x"));
  }
  std::ofstream(folder_ + "/stray.new") << "x";
  auto round = files_.round();
  int looks = 1;
  while (round.look(2, [&](const JobId& id) { return id == made[2]; })) {
    ++looks;
  }
  EXPECT_GE(looks, 3);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
  EXPECT_TRUE(std::filesystem::exists(files_.path(made[2])));
}

TEST_F(ResultFilesTest, AFolderThatCannotBeReadOnIsAtItsEnd) {
  ASSERT_TRUE(files_.write(id_, 0, "all"));
  const auto open_folders = [&] {
    std::set<int> open;
    for (int fd = 0; fd < 1000; ++fd) {
      std::error_code none;
      const auto name =
          std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), none).string();
      if (name == folder_) {
        open.insert(fd);
      }
    }
    return open;
  };
  const std::set<int> before = open_folders();
  ResultFiles::Round round = files_.round();
  std::set<int> its = open_folders();
  std::erase_if(its, [&](int fd) { return before.contains(fd); });
  ASSERT_EQ(its.size(), 1U);
  const Fd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::dup2(file.get(), *its.begin()), *its.begin());
  EXPECT_FALSE(round.look(10, [](const JobId&) { return false; }));
  EXPECT_EQ(content(), "all");
  std::filesystem::remove_all(folder_);
  EXPECT_FALSE(files_.round().look(10, [](const JobId&) { return false; }));
}

}  // namespace
}  // namespace penstock::queue
