/* Takes the power from an ext4 file system: what is not on the device by now never gets there.
 *
 *   power_cut MOUNT
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define EXT4_IOC_SHUTDOWN 0x8004587Du
#define WITHOUT_FLUSHING_THE_LOG 2u

int main(int count, char **words) {
    unsigned how = WITHOUT_FLUSHING_THE_LOG;
    int fd = count == 2 ? open(words[1], O_RDONLY) : -1;
    if (fd < 0 || ioctl(fd, EXT4_IOC_SHUTDOWN, &how) != 0) {
        perror("power_cut");
        return 1;
    }
    return 0;
}
