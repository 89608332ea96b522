// libFuzzer target: any bytes, read in each of the three formats, either become a dataset or are rejected
// with an Error. check_dataset reports a fault exactly when loading does. All samples of a dataset form a
// valid batch.
#include <algorithm>

#include "data/sets/batch.h"
#include "tests/fuzz/fuzzing.h"

using namespace burrow;
using namespace burrow::data;

namespace {

constexpr int64_t visual_tokens = 4;

const Tokenizer& tokenizer() {
  static const Tokenizer t = Tokenizer::of(
      {"<unk>", "<bos>", "<sep>", "<eos>"},
      {"p", "q", "what", "is", "yes", "no", "USER:", "true", "false", "A", "B", "C", "D", "1", "2"});
  return t;
}

// A valid image, a truncated one, and a link to outside.
const FuzzFolder& images() {
  static const FuzzFolder folder;
  static const bool once = [] {
    write_png(folder.path / "i.png", {2, 2, std::vector<uint8_t>(12, 9)});
    std::filesystem::create_directory(folder.path / "sub");
    std::filesystem::create_symlink("/", folder.path / "out");
    std::filesystem::copy_file(folder.path / "i.png", folder.path / "sub/short.png");
    std::filesystem::resize_file(folder.path / "sub/short.png", 40);
    return true;
  }();
  require(once, "the images are written once");
  return folder;
}

void use(const Dataset& set) {
  std::vector<BatchSample> samples;
  for (int64_t i = 0; i < set.size(); ++i) {
    const Sample s = set.sample(i);
    require(s.supervised() > 0, "every sample has a supervised token");
    require(s.length(visual_tokens) <= set.settings().max_tokens, "no sample is too long");
    require(s.visual_at <= static_cast<int64_t>(s.ids.size()), "the image stands within the sample");
    require((s.image >= 0) == (s.visual_at >= 0), "an image has its place");
    if (s.choices > 0) {
      require(s.choices >= 2 && s.correct >= 0 && s.correct < s.choices,
              "the right choice is among the choices");
      for (const int32_t label : set.labels(s, false))
        require(label >= 0 && label != tokenizer().unknown(), "a label that is used is a token");
      require(s.answer.empty() || s.ids[static_cast<size_t>(s.first_answer())] ==
                                      set.labels(s, false)[static_cast<size_t>(s.correct)],
              "what is learnt is the right label");
    }
    set.print_sample(i, tokenizer());
    samples.push_back({s, 0, i});
  }
  const Batch batch = make_batch(samples, visual_tokens);
  require(batch.supervised.numel() == set.supervised_tokens(), "what is supervised is counted");
  require(batch.segments.count() == set.size() && batch.ids.numel() == batch.segments.rows(),
          "a batch holds every sample");
}

}  // namespace

namespace {

void read_as(Format format, std::string_view text, size_t size) {
  DatasetSettings settings;
  settings.format = format;
  settings.supervision = size % 3 ? Supervision::answer : Supervision::all;
  settings.file = "fuzz.json";
  settings.images = images().path;
  settings.visual_tokens = visual_tokens;
  settings.max_tokens = 64;
  settings.check_images = ImageCheck::decode;
  settings.chat = size % 2 ? "plain" : "vicuna_v1";
  const std::vector<Fault> faults = check_dataset(text, settings, tokenizer());
  for (const Fault& f : faults) {
    const std::string line = f.text();
    require(line.starts_with("fuzz.json") && !f.reason.empty(), "a fault has its file and a reason");
    require(line.find('\n') == std::string::npos && line.size() < 1000, "a fault is named in one short line");
  }
  const auto hard =
      std::count_if(faults.begin(), faults.end(), [](const Fault& f) { return !f.unsupervised; });
  try {
    const Dataset set = Dataset::parse(text, settings, tokenizer());
    require(hard == 0, "a dataset with a fault is refused");
    use(set);
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const Format format : {Format::llava, Format::choices, Format::text})
    read_as(format, text_of(data, size), size);
  return 0;
}
