#include "worker/queue/handover/record.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace penstock::queue {
namespace {

std::string bytes_of(const Fd& memory) {
  struct stat status {};
  ::fstat(memory.get(), &status);
  std::string bytes(static_cast<size_t>(status.st_size), '\0');
  EXPECT_EQ(::pread(memory.get(), bytes.data(), bytes.size(), 0),
            static_cast<ssize_t>(bytes.size()));
  return bytes;
}

std::string written(uint64_t format = kNewestFormat) {
  auto writer = RecordWriter::create();
  writer->add(CarriedBegin{.format = format, .version = "1.2.3", .now_ns = 7});
  writer->add(CarriedJob{.high = 1, .low = 2, .queue = "default", .frame = "body"});
  writer->add(CarriedWaiter{.caller = 3, .id = 4});
  writer->add(CarriedQueue{.name = "default"});
  auto memory = writer->finish();
  EXPECT_TRUE(memory);
  return bytes_of(*memory);
}

TEST(RecordTest, IsReadBackEntryByEntry) {
  const std::string record = written();
  RecordReader reader(record);
  CarriedBegin begin;
  ASSERT_TRUE(reader.next() && reader.type() == CarriedBegin::kType && reader.read(begin));
  EXPECT_EQ(begin.version, "1.2.3");
  CarriedJob job;
  ASSERT_TRUE(reader.next() && reader.type() == CarriedJob::kType && reader.read(job));
  EXPECT_EQ(job.frame, "body");
  CarriedWaiter waiter;
  ASSERT_TRUE(reader.next() && reader.type() == CarriedWaiter::kType && reader.read(waiter));
  EXPECT_EQ(waiter.caller, 3U);
  CarriedQueue queue;
  ASSERT_TRUE(reader.next() && reader.type() == CarriedQueue::kType && reader.read(queue));
  EXPECT_FALSE(reader.next());
  EXPECT_EQ(reader.error(), nullptr);
}

TEST(RecordTest, CutAnywhereItIsNone) {
  const std::string record = written();
  CarriedBegin begin;
  EXPECT_EQ(check_record(record, begin), nullptr);
  for (size_t size = 0; size < record.size(); ++size) {
    EXPECT_NE(check_record(std::string_view(record).substr(0, size), begin), nullptr) << size;
  }
  EXPECT_NE(check_record(record + "more", begin), nullptr);
}

TEST(RecordTest, FormatsBeyondTheRangeAreRefused) {
  CarriedBegin begin;
  EXPECT_STREQ(check_record(written(kNewestFormat + 1), begin),
               "it is of a format that this penstockd does not read");
  EXPECT_STREQ(check_record(written(kOldestFormat - 1), begin),
               "it is of a format that this penstockd does not read");
}

TEST(RecordTest, WithoutItsBeginningOrWithAnUnknownEntryItIsNone) {
  auto writer = RecordWriter::create();
  writer->add(CarriedQueue{.name = "default"});
  CarriedBegin begin;
  EXPECT_STREQ(check_record(bytes_of(*writer->finish()), begin),
               "it does not begin with what it is");
  std::string record = written();
  const size_t second = record.find("default");
  record[record.rfind('\x0d', second)] = '\x63';  // the job's type
  EXPECT_STREQ(check_record(record, begin), "it has an entry of no known type");
}

TEST(RecordTest, OnlySealedMemoryIsTaken) {
  ::setenv(kHandOverVariable, "nonsense", 1);
  EXPECT_FALSE(MappedRecord::from_environment());
  EXPECT_EQ(::getenv(kHandOverVariable), nullptr);
  char name[] = "/tmp/penstock-record-XXXXXX";
  const int file = ::mkstemp(name);
  ::unlink(name);
  ASSERT_EQ(::write(file, "PHANDOV1", 8), 8);
  ::setenv(kHandOverVariable, std::to_string(file).c_str(), 1);
  EXPECT_FALSE(MappedRecord::from_environment());
  auto writer = RecordWriter::create();
  writer->add(CarriedBegin{.format = kNewestFormat});
  auto memory = writer->finish();
  EXPECT_LT(::write(memory->get(), "x", 1), 0);
  ::setenv(kHandOverVariable, std::to_string(memory->release()).c_str(), 1);
  const auto record = MappedRecord::from_environment();
  ASSERT_TRUE(record && record->valid());
  CarriedBegin begin;
  EXPECT_EQ(check_record(record->bytes(), begin), nullptr);
}

TEST(RecordTest, NothingIsHandedOverWhereNothingIsSaid) {
  ::unsetenv(kHandOverVariable);
  const auto record = MappedRecord::from_environment();
  ASSERT_TRUE(record);
  EXPECT_FALSE(record->valid());
}

}  // namespace
}  // namespace penstock::queue
