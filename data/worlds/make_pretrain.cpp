// Writes the stage-1 set: images of all three domains with several questions each, and text to repeat.
#include <set>

#include "data/json.h"
#include "data/worlds/make.h"
#include "data/worlds/make_files.h"

namespace burrow::data {
namespace fs = std::filesystem;
namespace {

struct PretrainSplit {
  const char* name;
  int64_t images, records;  // records: the most that the list may have
  int records_per_image;
};

// Distinct questions on one scene; repeats one only when 100 tries find no other.
std::vector<Question> draw_questions(Random& random, const Scene& scene, int count) {
  std::vector<Question> drawn;
  std::set<std::string> asked;
  while (static_cast<int>(drawn.size()) < count) {
    Question q = describe(random, scene);
    for (int tries = 0; tries < 100 && asked.contains(q.question); ++tries) q = describe(random, scene);
    asked.insert(q.question);
    drawn.push_back(std::move(q));
  }
  return drawn;
}

// The number of text-only records among those of the first `images` images.
int64_t copies_after(int64_t images, const PretrainSplit& split, const PretrainOptions& options) {
  return options.records_per_copy == 0 ? 0 : images * split.records_per_image / options.records_per_copy;
}

// Writes image `index`; returns its records and the text-only records after it.
std::string make_image(const fs::path& images, const PretrainSplit& split, int64_t index,
                       const PretrainOptions& options) {
  const Domain domain = domains[static_cast<size_t>(index % 3)];
  Random random = random_of(options.seed, fmt::format("data/pretrain/{}", split.name), index);
  Image image;
  const Scene scene = draw_scene(random, domain, image);
  const std::string file = fmt::format("{}/{:06}.png", split.name, index);
  write_png(images / file, image);

  int64_t number = index * split.records_per_image + copies_after(index, split, options);
  std::string text;
  const auto add = [&](const std::string& image_file, const Question& question) {
    if (number >= split.records) return;
    if (!text.empty()) text += ",\n";
    text += record_line(fmt::format("pretrain-{}-{:07}", split.name, number++), image_file, question);
  };
  for (const Question& q : draw_questions(random, scene, split.records_per_image)) add(file, q);
  for (int64_t c = copies_after(index, split, options); c < copies_after(index + 1, split, options); ++c) {
    Random copy = random_of(options.seed, fmt::format("data/pretrain/{}/copy", split.name), c);
    add("", copy_words(copy));
  }
  return text;
}

void make_split(const fs::path& work, const PretrainSplit& split, const PretrainOptions& options,
                const Progress& progress) {
  const fs::path images = work / "images";
  fs::create_directories(images / split.name);
  write_list(
      work / fmt::format("{}.json", split.name), split.images, options.threads,
      fmt::format("pretrain/{}", split.name),
      [&](int64_t i) { return make_image(images, split, i, options); }, progress);
}

// The fewest images that give `records` records, text-only ones included.
int64_t images_for(int64_t records, const PretrainOptions& options) {
  if (options.records_per_copy == 0) return records;
  const int64_t per = options.records_per_copy;
  return (records * per + per) / (per + 1);
}

}  // namespace

bool make_pretrain(const fs::path& dir, const PretrainOptions& options, const Progress& progress) {
  BURROW_CHECK(
      options.images >= 0 && options.images <= kMostRecords && options.records_per_image > 0 &&
          options.validation >= 0 && options.records_per_copy >= 0 && options.threads > 0,
      "[make] images {}, records_per_image {}, validation {}, records_per_copy {}, threads {}: out of range",
      options.images, options.records_per_image, options.validation, options.records_per_copy,
      options.threads);
  const nlohmann::json manifest = make_manifest("pretrain", {{"seed", options.seed},
                                                             {"images", options.images},
                                                             {"records_per_image", options.records_per_image},
                                                             {"validation", options.validation},
                                                             {"records_per_copy", options.records_per_copy}});
  const MakeLock lock(dir);
  make_tokenizer(dir, scene_tokenizer());
  return make_folder(dir, "pretrain", manifest, [&](const fs::path& work) {
    make_split(work, {"train", options.images, INT64_MAX, options.records_per_image}, options, progress);
    make_split(work, {"validation", images_for(options.validation, options), options.validation, 1}, options,
               progress);
  });
}

}  // namespace burrow::data
